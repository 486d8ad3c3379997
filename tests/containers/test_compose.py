"""docker-compose.yml by a real engine, all the way: what `make compose-test` does, on a random model."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from helm.images.engines import EngineError, NoEngine, find
from tests.containers import __main__ as compose_test


@pytest.mark.slow
def test_the_compose_file_runs(tmp_path: Path) -> None:
    """Ready, locked, trained and talked to, restarted, upgraded, taken down and up, broken and mended; every function
    that it goes through raises where something is not as promised."""
    try:
        engine = find(tmp_path)
        compose_test.ready(engine)
    except (NoEngine, EngineError) as error:
        pytest.skip(str(error))
    report: dict[str, Any] = {}
    compose_test.through(engine, argparse.Namespace(base="tiny", steps=8000), tmp_path, report)
    assert report["restarts"]["load"]
    assert set(report["containers"]) == {"postgres", "valkey", "api", "proxy", "worker", "prometheus"}
    assert len(report["faults"]) >= 9
