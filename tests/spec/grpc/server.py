"""A server of gRPC whose messages are bytes: says its port, and then what became of calls that were given up."""

import concurrent.futures
import sys
import threading

import grpc


def say(*words):
    print(*words, flush=True)


def unary(message, context):
    metadata = dict(context.invocation_metadata())
    context.send_initial_metadata([("x-initial", metadata.get("x-word", "none"))])
    context.set_trailing_metadata([("x-trailing", "last"), ("x-binary-bin", b"\x00\xff")])
    return b"unary " + message


def fail(message, context):
    context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: " + message.decode() + " \u00e4")


def client_stream(messages, context):
    return b"+".join(messages)


def server_stream(message, context):
    for number in range(int(message)):
        yield b"%d" % number


def bidirectional(messages, context):
    for message in messages:
        yield b"echo " + message


def wait(message, context):
    """Waits to be given up, and says so."""
    over = threading.Event()
    context.add_callback(over.set)
    say("waiting", int(context.time_remaining() is not None and context.time_remaining() < 1000))
    over.wait(20)
    say("over")
    return b""


HANDLERS = {
    "Unary": grpc.unary_unary_rpc_method_handler(unary),
    "Fail": grpc.unary_unary_rpc_method_handler(fail),
    "Wait": grpc.unary_unary_rpc_method_handler(wait),
    "ClientStream": grpc.stream_unary_rpc_method_handler(client_stream),
    "ServerStream": grpc.unary_stream_rpc_method_handler(server_stream),
    "Bidirectional": grpc.stream_stream_rpc_method_handler(bidirectional),
}

server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=16))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("portreeve.Test", HANDLERS)])
say(server.add_insecure_port("127.0.0.1:0"))
server.start()
sys.stdin.read()
server.stop(0)
