"""A server of gRPC that tells its health: says its port, and of the service `shop.Cart` what each line it reads says.

Arguments: a certificate and its key, for TLS.
"""

import concurrent.futures
import sys

import grpc

STATUSES = {"UNKNOWN": 0, "SERVING": 1, "NOT_SERVING": 2}
status = "SERVING"


def check(message, context):
    # HealthCheckRequest { string service = 1; }
    service = message[2:].decode() if message else ""
    if service not in ("", "shop.Cart"):
        context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
    # HealthCheckResponse { ServingStatus status = 1; }
    return bytes([0x08, STATUSES[status] if service else 1])


handlers = {"Check": grpc.unary_unary_rpc_method_handler(check)}
server = grpc.server(concurrent.futures.ThreadPoolExecutor(max_workers=4))
server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler("grpc.health.v1.Health", handlers)])
if len(sys.argv) > 1:
    certificate, key = (open(name, "rb").read() for name in sys.argv[1:3])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
for line in sys.stdin:
    status = line.strip()
    print(status, flush=True)
