"""A folder of wheels offered to a build as a package index, on this machine's loopback, for as long as it lasts."""

import functools
import http.server
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final

PORT: Final = 38931


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, format: str, *args: Any) -> None:
        """Nothing: the build says what it fetches."""


def _listening(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> http.server.ThreadingHTTPServer:
    """On PORT where it is free: an engine knows a layer again by the words that made it, and the URL is one of them."""
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", PORT), handler)
    except OSError:
        return http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)


@contextmanager
def offered(wheels: Path) -> Iterator[str]:
    """The URL of an index (PEP 503) of the wheels in this folder. Raises FileNotFoundError where it has none."""
    found = sorted(wheels.glob("*.whl"))
    if not found:
        raise FileNotFoundError(f"{wheels} has no wheel")
    with TemporaryDirectory(prefix="onward-index-") as folder:
        for wheel in found:
            project = re.sub(r"[-_.]+", "-", wheel.name.partition("-")[0]).lower()
            place = Path(folder, project)
            place.mkdir(exist_ok=True)
            (place / wheel.name).symlink_to(wheel.resolve())
        handler = functools.partial(_Quiet, directory=folder)
        with _listening(handler) as server:
            thread = threading.Thread(target=server.serve_forever, daemon=True)
            thread.start()
            try:
                yield f"http://127.0.0.1:{server.server_port}/"
            finally:
                server.shutdown()
                thread.join()
