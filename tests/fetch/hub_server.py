"""A model hub on this machine: `/OWNER/NAME/resolve/REVISION/FILE`, as huggingface.co answers it.

Weights are redirected to another host, as to the hub's storage, which knows no commits and has tags of its own; what
describes them stands in headers of the redirection.
"""

import hashlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from repblend.store import JSON

COMMIT = "fedcba9876543210fedcba9876543210fedcba98"
STORAGE = "/storage/"


@dataclass
class Hub:
    """What the server has, and what was asked of it."""

    repositories: dict[str, dict[str, bytes]]
    commit: str = COMMIT
    claims: JSON = field(default_factory=dict)
    """File -> headers of its description that are not as they should be."""
    stop_after: int | None = None
    """Say nothing more after this many bytes of a weights file, but keep the connection."""
    asked: list[tuple[str, str, str | None]] = field(default_factory=list)
    """Method, path and range of every request."""
    stalled: threading.Event = field(default_factory=threading.Event)
    released: threading.Event = field(default_factory=threading.Event)
    url: str = ""
    storage_url: str = ""

    def ranges(self) -> list[str]:
        return [found for method, _, found in self.asked if method == "GET" and found]

    def downloads(self) -> list[str]:
        return [path for method, path, _ in self.asked if method == "GET" and not path.startswith(STORAGE)]


class Handler(BaseHTTPRequestHandler):
    """Answers for one `Hub`, the server's attribute `hub`."""

    protocol_version = "HTTP/1.1"

    def do_HEAD(self) -> None:
        self._answer(with_body=False)

    def do_GET(self) -> None:
        self._answer(with_body=True)

    def log_message(self, *arguments: object) -> None:
        """Say nothing."""

    def _answer(self, with_body: bool) -> None:
        hub: Hub = self.server.hub
        hub.asked.append((self.command, self.path, self.headers.get("Range")))
        path = self.path.removeprefix(STORAGE).lstrip("/")
        owner, name, _, revision, file = path.split("/", 4)
        content = hub.repositories.get(f"{owner}/{name}", {}).get(file)
        if content is None or revision not in ("main", hub.commit):
            return self._send(404, {"X-Error-Code": "EntryNotFound" if content is None else "RevisionNotFound"})
        if file.endswith(".safetensors") and not self.path.startswith(STORAGE):
            return self._send(302, {"Location": f"{hub.storage_url}{STORAGE}{path}", "X-Repo-Commit": hub.commit,
                                    "X-Linked-Size": len(content),
                                    "X-Linked-Etag": f'"{hashlib.sha256(content).hexdigest()}"'},
                              more=hub.claims.get(file))
        git = hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
        described = {"X-Repo-Commit": hub.commit, "ETag": f'"{git}"'} | hub.claims.get(file, {})
        return self._send(*self._part(content), {"ETag": '"storage"'} if self.path.startswith(STORAGE) else described,
                          with_body)

    def _part(self, content: bytes) -> tuple[int, JSON, bytes]:
        asked = self.headers.get("Range")
        start = int(asked.removeprefix("bytes=").split("-")[0]) if asked else 0
        headers = {"Content-Range": f"bytes {start}-{len(content) - 1}/{len(content)}"} if asked else {}
        return (206 if asked else 200), headers, content[start:]

    def _send(self, status: int, headers: JSON, body: bytes = b"", more: JSON | None = None,
              with_body: bool = False) -> None:
        self.send_response(status)
        for name, value in (headers | (more or {}) | {"Content-Length": len(body)}).items():
            self.send_header(name, str(value))
        self.end_headers()
        if with_body:
            self._write(body)

    def _write(self, body: bytes) -> None:
        hub: Hub = self.server.hub
        if hub.stop_after is None or not self.path.startswith(STORAGE):
            self.wfile.write(body)
            return
        self.wfile.write(body[:hub.stop_after])
        self.wfile.flush()
        hub.stalled.set()
        hub.released.wait(60)


class Server(ThreadingHTTPServer):
    """A server to which it is no error that a client was killed."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    """Serve a hub on a free port while the body runs; `hub.url` is its address."""
    server = Server(("127.0.0.1", 0), Handler)
    server.hub = hub
    hub.url = f"http://127.0.0.1:{server.server_address[1]}"
    hub.storage_url = f"http://localhost:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        hub.released.set()
        server.shutdown()
        server.server_close()
        thread.join()
