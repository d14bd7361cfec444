"""A reverse proxy that serves another server below a prefix of the path, as nginx does, and nothing else."""

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit


@contextmanager
def stripping_proxy(server_url: str, prefix: str) -> Iterator[str]:
    """The URL of the top of `server_url` behind the prefix, with its slash. Any other path is 404."""
    server = urlsplit(server_url)

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if not self.path.startswith(f"{prefix}/"):
                self.send_error(404)
                return
            connection = http.client.HTTPConnection(server.hostname or "", server.port, timeout=10)
            connection.request("GET", self.path.removeprefix(prefix))
            answer = connection.getresponse()
            body = answer.read()
            self.send_response(answer.status)
            # Of the headers those that decide where a client goes next.
            for name in ("content-type", "location", "content-encoding"):
                if value := answer.headers[name]:
                    self.send_header(name, value)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)
            connection.close()

        def log_message(self, *_: object) -> None:
            """Nothing to standard error."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as proxy:
        threading.Thread(target=proxy.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{proxy.server_port}{prefix}/"
        proxy.shutdown()
