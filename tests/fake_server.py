"""A web server on this machine that reads ranges, and fails when told to."""

import contextlib
import http.server
import re
import socket
import threading
import time
from pathlib import Path


@contextlib.contextmanager
def serve(folder, *, lists=True):
    """Serves a folder; yields a `Server`.

    Args:
        folder: what to serve.
        lists: whether folders are listed.
    """
    handler = type("Handler", (_Handler,), {"folder": Path(folder), "lists": lists})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    server.daemon_threads = True
    server.requests, server.faults = [], []
    thread = threading.Thread(target=server.serve_forever, name="fake-server")
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def url(server, path="") -> str:
    """The address of a path below the served folder."""
    return f"http://127.0.0.1:{server.server_address[1]}/{path}"


class _Handler(http.server.BaseHTTPRequestHandler):
    """`server.requests` records (method, path, first, stop) of all requests.

    Of `server.faults`, requests of ranges take the first each: "500", "404", "slow"
    (sends nothing for two seconds), "cut" (half of the bytes, then closes), "whole"
    (ignores the range) or "".
    """

    protocol_version = "HTTP/1.1"
    folder: Path
    lists: bool

    def do_HEAD(self):
        self._answer(send=False)

    def do_GET(self):
        self._answer(send=True)

    def log_message(self, format, *args):
        del format, args

    def _answer(self, *, send: bool):
        path = self.folder / self.path.lstrip("/")
        if path.is_dir() and self.lists:
            links = "".join(f'<a href="{p.name}">x</a>' for p in path.iterdir())
            return self._send(200, links.encode(), send)
        if not path.is_file():
            return self._send(404, b"", send)
        data, status = path.read_bytes(), 200
        found = re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        first, stop = 0, len(data)
        fault = ""
        if found and send:
            first, stop = int(found[1]), min(int(found[2]) + 1, len(data))
            fault = self.server.faults.pop(0) if self.server.faults else ""
            status = 206
        self.server.requests.append((self.command, self.path, first, stop))
        if fault in ("500", "404"):
            return self._send(int(fault), b"", send)
        if fault == "slow":
            time.sleep(2)
        if fault == "whole":
            return self._send(200, data, send)
        return self._send(status, data[first:stop], send, cut=fault == "cut")

    def _send(self, status: int, data: bytes, send: bool, cut: bool = False):
        with contextlib.suppress(ConnectionError):  # who asked has given up
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("Accept-Ranges", "bytes")
            self.end_headers()
            if send:
                self.wfile.write(data[: len(data) // 2] if cut else data)
            if cut:
                self.wfile.flush()
                self.close_connection = True
                self.connection.shutdown(socket.SHUT_RDWR)
