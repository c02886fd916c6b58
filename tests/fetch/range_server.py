"""A file server on this machine that answers Range requests and breaks off where a test wants it to."""

import contextlib
import http.server
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path


@dataclass
class RangeServer:
    """Serves a folder; the tests change its behaviour while it runs."""

    folder: Path
    address: str = ""
    break_after: list[int] = field(default_factory=list)
    """Bytes of the next answers after which the connection is cut, one entry per answer."""
    tags: dict[str, str] = field(default_factory=dict)
    """ETag of a path; the content's length by default."""
    links: dict[str, str] = field(default_factory=dict)
    """Link header of a path with its query."""
    busy: int = 0
    """How many of the next requests are answered with 503."""
    ranges: list[tuple[str, int]] = field(default_factory=list)
    """Of every answer the path and its first byte."""


def _handler(server: RangeServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Stay quiet."""

        def do_GET(self) -> None:
            if server.busy:
                server.busy -= 1
                self.send_error(503)
                return
            path = self.path.partition("?")[0].lstrip("/")
            file = server.folder / path
            if not file.is_file():
                self.send_error(404)
                return
            content = file.read_bytes()
            tag = server.tags.get(path, f'"{len(content)}"')
            start = self._start(tag)
            if start and start >= len(content):
                self.send_response(416)
                self.send_header("Content-Range", f"bytes */{len(content)}")
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            server.ranges.append((path, start))
            self.send_response(206 if start else 200)
            self.send_header("ETag", tag)
            self.send_header("Content-Length", str(len(content) - start))
            if self.path in server.links:
                self.send_header("Link", server.links[self.path])
            self.end_headers()
            cut = server.break_after.pop(0) if server.break_after else None
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the other side was killed
                self.wfile.write(content[start:] if cut is None else content[start:start + cut])

        def _start(self, tag: str) -> int:
            asked = self.headers.get("Range")
            if asked is None or self.headers.get("If-Range", tag) != tag:
                return 0
            return int(asked.removeprefix("bytes=").removesuffix("-"))

    return Handler


@contextlib.contextmanager
def serving(folder: Path) -> Iterator[RangeServer]:
    """Serve a folder at `address` while the body runs."""
    state = RangeServer(folder)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(state)) as server:
        state.address = f"http://127.0.0.1:{server.server_port}"
        thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield state
        finally:
            server.shutdown()
            thread.join()
