"""A web server on this machine that misbehaves on demand, for the tests of downloads."""

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Server:
    """Answers the n-th request with the n-th step of ``plan``; the last step repeats.

    A step is a function of the request handler. ``ranges`` lists the Range header of each request.
    """

    def __init__(self) -> None:
        self.plan: list[Callable] = []
        self.requests: list[dict[str, str]] = []
        server = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                number = len(server.requests)
                server.requests.append({"path": self.path, **dict(self.headers.items())})
                server.plan[min(number, len(server.plan) - 1)](self)
                self.close_connection = True

            def log_message(self, *_) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._thread = threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    @property
    def ranges(self) -> list[str | None]:
        return [request.get("Range") for request in self.requests]

    def url(self, name: str = "file.zip") -> str:
        return f"http://127.0.0.1:{self._http.server_port}/{name}"

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


def send(
    body: bytes,
    *,
    etag: str | None = '"v1"',
    break_after: int | None = None,
    announce: int | None = None,
    ranges: bool = True,
    status: int = 200,
    kind: str = "application/zip",
    headers: dict[str, str] | None = None,
) -> Callable:
    """A step: serve ``body`` as RFC 9110 asks, apart from the faults that are asked for.

    ``break_after`` closes the connection after so many bytes of this answer; ``announce`` is a
    false Content-Length (None: the true one); ``ranges`` False ignores Range.
    """

    def step(handler: BaseHTTPRequestHandler) -> None:
        start, code = 0, status
        wanted = handler.headers.get("Range")
        unchanged = handler.headers.get("If-Range") in (None, etag)
        if ranges and wanted and unchanged and status == 200:
            start, code = int(wanted.removeprefix("bytes=").rstrip("-")), 206
        part = body[start:]
        handler.send_response(code)
        handler.send_header("Content-Type", kind)
        length = len(part) if announce is None else announce
        handler.send_header("Content-Length", str(length))
        if etag:
            handler.send_header("ETag", etag)
        if code == 206:
            handler.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        for name, value in (headers or {}).items():
            handler.send_header(name, value)
        handler.end_headers()
        handler.wfile.write(part if break_after is None else part[:break_after])

    return step
