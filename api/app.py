"""The API process: routes, errors, metrics and the page that describes them. Holds no model code."""

import signal
import sys
import threading
from types import FrameType

import structlog
import uvicorn
from fastapi import FastAPI
from prometheus_client import start_http_server
from pydantic import ValidationError

from api import errors, files, models
from api.context import Context
from api.description import described
from api.jobs import routes
from api.middleware import Requests
from api.ops import health, metrics
from api.settings import Settings, get_settings
from api.token_counts import TokenCounts
from db.queue import celery_app, ringer
from db.session import sessions
from db.telemetry import logs, traces
from db.telemetry.version import VERSION

log = structlog.get_logger("api.app")
FINISH_SECONDS = 20
ABOUT = (
    "Fine-tuning by forward passes only. OpenAI's files, fine-tuning jobs and models: an `openai` client works with "
    "its `base_url` changed. Everything of ours is under the key `onward`."
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """An app of its own, with its own metrics; opens no connection before the first request."""
    settings = settings or get_settings()
    factory = sessions(settings.database_url)
    registry, http = metrics.registry(factory, settings)
    app = FastAPI(title="Onward", version=VERSION, description=ABOUT, redirect_slashes=False)
    ring = ringer(celery_app(settings.redis_url), metrics.doorbells(registry, sorted(settings.models)))
    context = Context(settings, factory, TokenCounts(settings.token_cache_files), ring)
    app.state.context = context
    app.state.registry = registry
    app.add_middleware(metrics.HttpMetrics, counts=http)
    errors.install(app)
    for room in (files, routes, models, health):
        app.include_router(room.router)
    if not settings.api_metrics_port:
        app.include_router(health.scraped)
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    # What answers unforeseen errors stands outside of every middleware that can be added; an id is given further out.
    inside = app.build_middleware_stack
    app.build_middleware_stack = lambda: Requests(inside(), context.draining)  # type: ignore[method-assign]
    return app


def main() -> None:
    """Serves until SIGTERM, which drains first, or SIGINT; requests in hand then have `FINISH_SECONDS`."""
    try:
        settings = get_settings()
    except ValidationError as error:
        print(f"the API's settings (ONWARD_*) are wrong: {error}", file=sys.stderr)
        sys.exit(2)
    logs.configure("api", settings.log_format, settings.log_level)
    finish = traces.configure("api")
    app = create_app(settings)
    if settings.api_metrics_port:
        start_http_server(settings.api_metrics_port, registry=app.state.registry)
    log.info("serving", host=settings.host, port=settings.port, models=sorted(settings.models), version=VERSION)
    # uvicorn sends itself the signal again once it has stopped; by itself that would end the process before the last
    # spans are sent.
    signal.signal(signal.SIGTERM, lambda *_: None)
    config = uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        access_log=False,
        log_config=None,
        server_header=False,
        timeout_graceful_shutdown=FINISH_SECONDS,
    )
    try:
        Server(config, app.state.context.draining, settings.drain_seconds).run()
    finally:
        finish()


class Server(uvicorn.Server):
    """uvicorn's, which on SIGTERM drains before it stops listening."""

    def __init__(self, config: uvicorn.Config, draining: threading.Event, seconds: float) -> None:
        super().__init__(config)
        self._draining, self._seconds = draining, seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if sig != signal.SIGTERM or self._draining.is_set() or not self._seconds:
            super().handle_exit(sig, frame)
            return
        self._draining.set()
        last = threading.Timer(self._seconds, super().handle_exit, (sig, frame))
        last.daemon = True
        last.start()
