"""The API process: routes, errors, metrics and the page that describes them. Holds no model code."""

import sys
from typing import Any

import structlog
import uvicorn
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from prometheus_client import CollectorRegistry

from api import errors, files, health, jobs, models
from api.context import Context
from api.metrics import HttpMetrics, QueueMetrics
from api.settings import Settings, get_settings
from api.tokens import TokenCounts
from api.wire import JobCreate
from db.queue import celery_app, ringer
from db.session import sessions

DRAIN_SECONDS = 20
ABOUT = (
    "Fine-tuning by forward passes only. OpenAI's files, fine-tuning jobs and models: an `openai` client works with "
    "its `base_url` changed. Everything of ours is under the key `onward`."
)


def create_app(settings: Settings | None = None) -> FastAPI:
    """An app of its own, with its own metrics; opens no connection before the first request."""
    settings = settings or get_settings()
    factory, registry = sessions(settings.database_url), CollectorRegistry()
    registry.register(QueueMetrics(factory, sorted(settings.models)))
    app = FastAPI(title="Onward", version="0.1.0", description=ABOUT, redirect_slashes=False)
    ring = ringer(celery_app(settings.redis_url))
    app.state.context = Context(settings, factory, TokenCounts(settings.token_cache_files), ring)
    app.state.registry = registry
    app.add_middleware(HttpMetrics, registry=registry)
    errors.install(app)
    for room in (files, jobs, models, health):
        app.include_router(room.router)
    app.openapi = lambda: described(app)  # type: ignore[method-assign]
    return app


def described(app: FastAPI) -> dict[str, Any]:
    """OpenAPI, with the schemas of the bodies that routes read themselves."""
    if app.openapi_schema is None:
        page = get_openapi(title=app.title, version=app.version, description=app.description, routes=app.routes)
        schema = JobCreate.model_json_schema(ref_template="#/components/schemas/{model}")
        schemas = page["components"]["schemas"]
        schemas |= schema.pop("$defs", {}) | {"JobCreate": schema}
        app.openapi_schema = page
    return app.openapi_schema


def main() -> None:
    """Serves until SIGTERM or SIGINT, then finishes the requests in hand, for at most `DRAIN_SECONDS`."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer(),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    settings = get_settings()
    uvicorn.run(
        create_app(settings),
        host=settings.host,
        port=settings.port,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )
