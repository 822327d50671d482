"""A client of gRPC whose messages are bytes: makes one call of a kind, and says what came of it."""

import sys

import grpc

address, kind = sys.argv[1:3]
channel = grpc.insecure_channel(address)
SERVICE = "/portreeve.Test/"
LIMIT = 15


def failing(call):
    try:
        call()
    except grpc.RpcError as error:
        print(error.code().name, "|", error.details())


if kind == "unary":
    call = channel.unary_unary(SERVICE + "Unary").with_call
    answer, call = call(b"hello", metadata=[("x-word", "a word")], timeout=LIMIT)
    metadata = dict(call.initial_metadata()), dict(call.trailing_metadata())
    print(answer.decode(), "|", metadata[0]["x-initial"], "|", metadata[1]["x-trailing"], metadata[1]["x-binary-bin"].hex())
    print(call.code().name)
elif kind == "client-stream":
    call = channel.stream_unary(SERVICE + "ClientStream")
    print(call((b"%d" % number for number in range(5)), timeout=LIMIT).decode())
elif kind == "server-stream":
    call = channel.unary_stream(SERVICE + "ServerStream")
    print(" ".join(message.decode() for message in call(b"5", timeout=LIMIT)))
elif kind == "bidirectional":
    # Each message is sent only once the answer to the one before has come.
    import queue

    messages = queue.Queue()
    answers = channel.stream_stream(SERVICE + "Bidirectional")(iter(messages.get, None), timeout=LIMIT)
    for number in range(5):
        messages.put(b"%d" % number)
        print(next(answers).decode())
    messages.put(None)
    print(len(list(answers)), "more")
elif kind == "large":
    call = channel.stream_stream(SERVICE + "Bidirectional")
    sent = [bytes([number]) * 1_000_000 for number in range(20)]
    print([b"echo " + message for message in sent] == list(call(iter(sent), timeout=LIMIT)))
elif kind == "fail":
    failing(lambda: channel.unary_unary(SERVICE + "Fail")(b"no", timeout=LIMIT))
elif kind == "unknown":
    failing(lambda: channel.unary_unary(SERVICE + "Nothing")(b"", timeout=LIMIT))
elif kind == "deadline":
    failing(lambda: channel.unary_unary(SERVICE + "Wait")(b"", timeout=0.3))
elif kind == "cancel":
    # Given up only once the server has it, which says so to the test, which tells us.
    call = channel.unary_unary(SERVICE + "Wait").future(b"")
    sys.stdin.readline()
    call.cancel()
    print("cancelled", call.cancelled())
