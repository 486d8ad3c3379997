"""A real API on a free port, over the real PostgreSQL and Valkey of tests/conftest.py, with two tenants."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import uvicorn
from openai import OpenAI
from sqlalchemy.orm import Session, sessionmaker

from api import connections
from api.app import create_app
from api.settings import Settings
from cli.local.embedded import Urls
from db.tenant import keys
from tests.bases import tiny
from tests.waiting import HANG, until

MODEL = "tiny"


@dataclass(frozen=True)
class Client:
    """A tenant: its id, its secret, and an openai client that tries once."""

    id: str
    secret: str
    openai: OpenAI


@contextmanager
def serving(settings: Settings) -> Iterator[str]:
    """The base URL (with /v1) of an API that runs in a thread until the block ends."""
    app = create_app(settings)
    config = connections.config(app, settings, port=0, log_level="warning", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()

    def started() -> bool:
        assert thread.is_alive()
        return server.started

    until(started, "the API listens")
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}/v1"
    server.should_exit = True
    thread.join(HANG)
    app.state.context.ending.set()  # what it counts outside of requests ends too, before the database goes
    app.state.validator.join(HANG)
    app.state.ledger.close()


def client(factory: sessionmaker[Session], url: str, name: str, **limits: int) -> Client:
    with factory.begin() as session:
        tenant = keys.create(session, name, **limits)
        _, secret = keys.create_key(session, tenant.id)
    return Client(tenant.id, secret, OpenAI(base_url=url, api_key=secret, max_retries=0, timeout=HANG))


@pytest.fixture(scope="session")
def base_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny("llama", tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def settings(urls: Urls, redis_url: str, base_folder: Path) -> Settings:
    return Settings(
        database_url=urls.api_url,
        redis_url=redis_url,
        models={MODEL: str(base_folder)},
        max_file_bytes=60 << 20,
        max_rows=2000,
        count_inside_bytes=60 << 20,  # what is counted outside of requests has tests of its own
        requests_a_minute=0,  # thousands are sent from one address here: what limits them has tests of its own
        jobs_a_minute=0,
        wrong_keys_a_minute=0,
        restore_wait_seconds=0,  # no worker is here
    )


@pytest.fixture(scope="module")
def url(settings: Settings) -> Iterator[str]:
    with serving(settings) as found:
        yield found


@pytest.fixture(scope="module")
def anna(factory: sessionmaker[Session], url: str) -> Client:
    return client(factory, url, "anna")


@pytest.fixture(scope="module")
def ben(factory: sessionmaker[Session], url: str) -> Client:
    return client(factory, url, "ben")
