"""Stores of files to test with: a folder, and a bucket of a real S3 server in a process of its own. Knows no row."""

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from pydantic import SecretStr

from tests.waiting import HANG, until

KINDS = ("database", "folder", "bucket")


@dataclass
class S3Server:
    """moto's, at `endpoint`; what it keeps is in its memory."""

    endpoint: str
    child: subprocess.Popen[bytes]

    def bucket(self, name: str) -> str:
        assert httpx.put(f"{self.endpoint}/{name}", timeout=HANG).status_code == 200
        return f"s3://{name}/some/where"


@contextmanager
def s3_serving(folder: Path) -> Iterator[S3Server]:
    log = folder / "s3.log"
    with log.open("wb") as out:
        child = subprocess.Popen(
            [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", "0"], stdout=out, stderr=out
        )

    def told() -> re.Match[str] | None:
        assert child.poll() is None, log.read_text()
        return re.search(r"Running on (http://127\.0\.0\.1:\d+)", log.read_text())

    try:
        yield S3Server(until(told, "the S3 server listens")[1], child)
    finally:
        child.kill()
        child.wait(HANG)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    with s3_serving(tmp_path_factory.mktemp("s3")) as found:
        yield found


def settings_of(kind: str, folder: Path, request: pytest.FixtureRequest, bucket: str) -> dict[str, Any]:
    """What a process is told for a new store of this kind."""
    told: dict[str, Any] = {"store_retry_seconds": 0.0, "store_seconds": HANG}
    if kind == "database":
        return told
    if kind == "folder":
        folder.mkdir()
        return told | {"file_store": f"file://{folder}"}
    server: S3Server = request.getfixturevalue("s3_server")
    keys = {"s3_access_key_id": SecretStr("AKIAPLANTED"), "s3_secret_access_key": SecretStr("pl4nted-secret")}
    return told | {"file_store": server.bucket(bucket), "s3_endpoint": server.endpoint, **keys}
