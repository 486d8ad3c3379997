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
from pydantic_settings import SettingsError

from api import audit, connections, errors, expiry, files, models, profiles, receipts, uploads
from api.chat import routes as chat
from api.chat.ledger import Ledger
from api.chat.lines import Lines
from api.console import jobs as console_jobs
from api.console import pages as console_pages
from api.console import playground as console_playground
from api.context import Context
from api.description import described
from api.flights import Flights
from api.jobs import routes
from api.jobs.validating import Validator
from api.memory import Memory
from api.middleware import AtOnce, Requests
from api.ops import health, metrics
from api.pages import router as pages
from api.rates import Rates
from api.settings import Settings, get_settings
from api.token_counts import TokenCounts
from db import security
from db.queue import celery_app, ringer
from db.session import sessions
from db.store.opening import Stores, carrying
from db.telemetry import logs, traces
from db.telemetry.version import VERSION

log = structlog.get_logger("api.app")
ABOUT = (
    "Fine-tuning by forward passes only. OpenAI's files, fine-tuning jobs and models: an `openai` client works with "
    "its `base_url` changed. Everything of ours is under the key `onward`."
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """An app of its own, with its own metrics; opens no connection before the first request."""
    settings = settings or get_settings()
    stores = Stores(settings)
    factory = carrying(sessions(settings.database_url), stores)
    registry, http = metrics.registry(factory, settings)
    app = FastAPI(
        title="Onward", version=VERSION, description=ABOUT, redirect_slashes=False, docs_url=None, redoc_url=None
    )
    ring = ringer(celery_app(settings.redis_url), metrics.doorbells(registry, sorted(settings.models)))
    rates = Rates(settings.redis_url, settings.rate_retry_seconds)
    flights = Flights(settings.count_threads, settings.count_waiting, settings.counts_at_once)
    tokens, memory = TokenCounts(settings.token_cache_files), Memory(settings.serve_memory_seconds)
    context = Context(settings, factory, tokens, flights, rates, ring, stores, memory=memory)
    app.state.validator = Validator(context, lambda: expiry.sweep(context))
    metrics.counts(registry, lambda: float(flights.waiting))
    app.state.context = context
    app.state.registry = registry
    app.state.chats = metrics.ChatCounts(registry, sorted(settings.models))
    app.state.lines = Lines(settings, app.state.chats.retried)
    app.state.ledger = ledger = Ledger(factory, settings.serve_usage_seconds)
    metrics.unwritten(registry, lambda: float(ledger.unwritten), lambda: ledger.behind)
    app.add_middleware(metrics.HttpMetrics, counts=http)
    errors.install(app)
    for room in (files, uploads, routes, models, audit, receipts, profiles, health):
        app.include_router(room.router)
    app.include_router(chat.router)
    app.include_router(pages)
    app.include_router(console_pages.router)
    app.include_router(console_jobs.router)
    app.include_router(console_playground.pages)
    app.include_router(console_playground.router)
    if not settings.api_metrics_port:
        app.include_router(health.scraped)
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    # What answers unforeseen errors stands outside of every middleware that can be added; an id is given further out.
    inside = app.build_middleware_stack
    app.build_middleware_stack = lambda: Requests(AtOnce(inside(), settings.max_requests), context.draining)  # type: ignore[method-assign]
    return app


def main() -> None:
    """Serves until SIGTERM, which drains first, or SIGINT; requests in hand then have `connections.FINISH_SECONDS`."""
    try:
        settings = get_settings()
    except (ValidationError, SettingsError) as error:
        print(f"the API's settings (ONWARD_*) are wrong: {error}", file=sys.stderr)
        sys.exit(2)
    logs.configure("api", settings.log_format, settings.log_level)
    finish = traces.configure("api")
    app = create_app(settings)
    if settings.api_metrics_port:
        start_http_server(settings.api_metrics_port, registry=app.state.registry)
    # Beside, as the database may be away and nothing waits for it.
    threading.Thread(target=security.warn_unbound, args=(app.state.context.sessions,), daemon=True).start()
    app.state.validator.wake()  # what a process that ended has left
    log.info("serving", host=settings.host, port=settings.port, models=sorted(settings.models), version=VERSION)
    server = Server(connections.config(app, settings), app.state.context, settings.drain_seconds)
    # Before uvicorn has its own handler a signal must not be lost; and once it has stopped it sends itself the signal
    # again, which by itself would end the process before the last spans are sent.
    signal.signal(signal.SIGTERM, lambda *_: setattr(server, "should_exit", True))
    try:
        server.run()
    finally:
        app.state.ledger.close()
        finish()


class Server(uvicorn.Server):
    """uvicorn's, which on SIGTERM drains before it stops listening."""

    def __init__(self, config: uvicorn.Config, context: Context, seconds: float) -> None:
        super().__init__(config)
        self._context, self._seconds = context, seconds

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        draining = self._context.draining
        if sig != signal.SIGTERM or draining.is_set() or not self._seconds:
            self._end(sig, frame)
            return
        draining.set()
        last = threading.Timer(self._seconds, self._end, (sig, frame))
        last.daemon = True
        last.start()

    def _end(self, sig: int, frame: FrameType | None) -> None:
        self._context.draining.set()
        self._context.ending.set()
        super().handle_exit(sig, frame)
