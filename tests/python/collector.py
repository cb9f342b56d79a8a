"""A collector that takes OTLP over TLS, by gRPC's own library or Python's; it prints its port, then each body in hexadecimal.

usage: collector.py grpc|http/protobuf CERTIFICATE KEY [AUTHORITY]; with an authority, clients must show a certificate of it
"""

import ssl
import sys
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc

PROTOCOL, CERTIFICATE, KEY = sys.argv[1:4]
AUTHORITY = sys.argv[4] if len(sys.argv) > 4 else None


class Export(grpc.GenericRpcHandler):
    """Takes `TraceService/Export` without knowing its messages; an empty one is the answer."""

    def service(self, details):
        if details.method != "/opentelemetry.proto.collector.trace.v1.TraceService/Export":
            return None
        return grpc.unary_unary_rpc_method_handler(lambda body, _: print(body.hex(), flush=True) or b"")


class Post(BaseHTTPRequestHandler):
    def do_POST(self):
        print(self.rfile.read(int(self.headers["Content-Length"])).hex(), flush=True)
        self.send_response(200 if self.path == "/v1/traces" else 404)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_):
        pass


if PROTOCOL == "grpc":
    files = Path(KEY).read_bytes(), Path(CERTIFICATE).read_bytes()
    authority = Path(AUTHORITY).read_bytes() if AUTHORITY else None
    credentials = grpc.ssl_server_credentials([files], authority, require_client_auth=AUTHORITY is not None)
    server = grpc.server(futures.ThreadPoolExecutor(max_workers=4), handlers=[Export()])
    print(server.add_secure_port("127.0.0.1:0", credentials), flush=True)
    server.start()
    server.wait_for_termination()
else:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=AUTHORITY)
    context.load_cert_chain(CERTIFICATE, KEY)
    if AUTHORITY:
        context.verify_mode = ssl.CERT_REQUIRED
    server = ThreadingHTTPServer(("127.0.0.1", 0), Post)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    print(server.server_port, flush=True)
    server.serve_forever()
