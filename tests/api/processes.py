"""The API as a process of its own, ready at an address, with the settings that a test wants."""

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx

from api.settings import Settings
from tests.api.examples import http
from tests.ports import free_port
from tests.waiting import until


@contextmanager
def process(settings: Settings, **changed: Any) -> Iterator[tuple[subprocess.Popen[bytes], str]]:
    """An API process that is ready, and its address without /v1; killed at the end of the block."""
    port = free_port()
    env = os.environ | {"ONWARD_DATABASE_URL": settings.database_url, "ONWARD_REDIS_URL": settings.redis_url}
    env |= {"ONWARD_PORT": str(port), "ONWARD_MODELS": json.dumps(settings.models)}
    changed = {"count_inside_bytes": settings.count_inside_bytes} | changed
    env |= {f"ONWARD_{name.upper()}": str(value) for name, value in changed.items()}
    root = f"http://127.0.0.1:{port}"
    with subprocess.Popen([sys.executable, "-m", "api"], env=env) as started:

        def ready() -> bool:
            assert started.poll() is None
            with contextlib.suppress(httpx.TransportError):
                return http.get(f"{root}/healthz").is_success
            return False

        try:
            until(ready, "the API answers")
            yield started, root
        finally:
            started.kill()
