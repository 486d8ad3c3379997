"""What the outside may ask a worker: metrics, whether it lives, whether it is ready. Readiness is progress, not a ping.

The main thread is inside the engine or waits for a doorbell, so the answers come from a thread that looks at what the
main thread last began.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import make_wsgi_app

WsgiApp = Callable[..., list[bytes]]


class Progress:
    """What the main thread is at: loading, idle, or in a step since a time."""

    def __init__(self, stuck_seconds: float) -> None:
        self.stuck_seconds = stuck_seconds
        self.ready = threading.Event()
        self.draining = threading.Event()
        self.stood: Callable[[], float] = lambda: 0.0  # seconds in all that the main thread's work stood for serving's
        self.serving_since: Callable[[], float | None] = lambda: None  # when serving began what it is at
        self.out: Callable[[], str | None] = lambda: None  # why no work is taken now, where that is so
        self._since: tuple[float, float] | None = None  # and what had been stood by then

    @contextmanager
    def step(self) -> Iterator[None]:
        """A piece of work that must end within `stuck_seconds`."""
        self._since = time.monotonic(), self.stood()
        try:
            yield
        finally:
            self._since = None

    @property
    def stuck(self) -> bool:
        """A step of training, the time not counted that it stood, or one step of serving takes too long."""
        now, since, serving = time.monotonic(), self._since, self.serving_since()
        trains = since is not None and now - since[0] - (self.stood() - since[1]) > self.stuck_seconds
        return trains or (serving is not None and now - serving > self.stuck_seconds)


def application(progress: Progress) -> WsgiApp:
    """/metrics; /healthz is 503 once a step is stuck; /readyz is 200 from the engine's check until the drain, but while
    the worker is out of service."""
    metrics = make_wsgi_app()

    def app(environ: dict[str, str], start: Callable[..., object]) -> list[bytes]:
        path = environ.get("PATH_INFO", "")
        if path == "/metrics":
            return metrics(environ, start)  # type: ignore[no-any-return]
        if path == "/healthz":
            return _say(start, not progress.stuck, "stuck in a step" if progress.stuck else "ok")
        if path == "/readyz":
            word = _readiness(progress)
            return _say(start, word == "ok", word)
        start("404 Not Found", [("Content-Type", "text/plain")])
        return [b"not found\n"]

    return app


def _readiness(progress: Progress) -> str:
    if progress.draining.is_set():
        return "draining"
    if (out := progress.out()) is not None:
        return f"out of service: {out}"
    return "ok" if progress.ready.is_set() and not progress.stuck else "not ready"


def serve(port: int, progress: Progress) -> None:
    """Answer on `port` of every interface from a daemon thread. Raises OSError where it is taken."""
    server = make_server("", port, application(progress), _Server, _Silent)
    threading.Thread(target=server.serve_forever, name="health", daemon=True).start()


class _Server(WSGIServer):
    daemon_threads = True


class _Silent(WSGIRequestHandler):
    timeout = 10  # seconds: one slow caller must not keep the others waiting for ever

    def log_message(self, format: str, *args: object) -> None:
        """A scrape every few seconds is no news."""


def _say(start: Callable[..., object], ok: bool, word: str) -> list[bytes]:
    start("200 OK" if ok else "503 Service Unavailable", [("Content-Type", "text/plain")])
    return [word.encode() + b"\n"]
