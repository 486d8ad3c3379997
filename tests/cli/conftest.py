"""The command line in this process, against a real API over the real PostgreSQL."""

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner, Result

from cli.main import app

# The API and its tenants are the ones the API's own tests use.
from tests.api.conftest import Client, anna, base_folder, ben, settings, url

__all__ = ["anna", "base_folder", "ben", "settings", "url"]

Onward = Callable[..., Result]


@pytest.fixture
def shell(monkeypatch: pytest.MonkeyPatch, tmp_path, database_url: str, redis_url: str, base_folder) -> Onward:
    """Runs a command as `ok=True` demands; a wide terminal keeps table cells whole."""
    monkeypatch.setenv("ONWARD_HOME", str(tmp_path))
    monkeypatch.setenv("ONWARD_DATABASE_URL", database_url)
    monkeypatch.setenv("ONWARD_REDIS_URL", redis_url)
    monkeypatch.setenv("ONWARD_MODELS", json.dumps({"tiny": str(base_folder)}))
    monkeypatch.delenv("ONWARD_BASE_URL", raising=False)
    monkeypatch.delenv("ONWARD_API_KEY", raising=False)
    monkeypatch.setenv("COLUMNS", "240")

    def run(*words: str, ok: bool = True) -> Result:
        result = CliRunner().invoke(app, list(words))
        assert (result.exit_code == 0) == ok, result.output
        return result

    return run


@pytest.fixture
def onward(shell: Onward, monkeypatch: pytest.MonkeyPatch, url: str, anna: Client) -> Onward:
    """The same as tenant anna."""
    monkeypatch.setenv("ONWARD_BASE_URL", url)
    monkeypatch.setenv("ONWARD_API_KEY", anna.secret)
    return shell


def read(result: Result) -> Any:
    """What a command with --json printed."""
    return json.loads(result.stdout)


def complaint(result: Result) -> str:
    """The one line an error is, its hint beside it; nothing of a traceback."""
    assert result.exit_code == 1
    assert "Traceback" not in result.output
    lines = result.stderr.strip().splitlines()
    assert len(lines) <= 2
    assert lines[0].startswith("error: ")
    return result.stderr


@pytest.fixture(autouse=True)
def own_logs() -> Iterator[None]:
    """A command writes its logs to the stderr it was run with; what is tested next has another."""
    yield
    structlog.reset_defaults()
