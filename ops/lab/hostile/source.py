"""HTTP server from which a pool loads an adapter. It is periodically unavailable."""

import http.server
import io
import tarfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

PERIOD_S = 16.0
"""Seconds of one period. The source is unavailable in the second half of each period."""


class Source:
    """HTTP server of one adapter. It is available only in the first half of each period."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.num_answers = 0
        self.num_refusals = 0
        self.is_held_away: bool | None = None
        """Whether the server is unavailable; None lets its availability change periodically."""
        self._started_s = time.monotonic()

    @property
    def url(self) -> str:
        """URL of the adapter's archive."""
        return f"http://127.0.0.1:{self.port}/a.tgz"

    @property
    def is_away(self) -> bool:
        """Whether the source is unavailable now, so that it answers with an error."""
        if self.is_held_away is not None:
            return self.is_held_away
        return (time.monotonic() - self._started_s) % PERIOD_S > PERIOD_S / 2


@contextmanager
def flaky_source() -> Iterator[Source]:
    """Run a source during the block. The source is available at first."""
    archive = _archive()

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = b"" if source.is_away else archive
            source.num_refusals += source.is_away
            source.num_answers += not source.is_away
            self.send_response(200 if body else 500)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    source = Source(server.server_port)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield source
    finally:
        server.shutdown()
        server.server_close()


def _archive() -> bytes:
    """Return an archive whose files have the names of an adapter's files."""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        for name, content in (("adapter_config.json", b"{}"), ("adapter_model.safetensors", b"x")):
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return packed.getvalue()
