"""The CPU worker's image: its locks and files in an empty folder, run as its user from a tree nobody can write."""

import json
import signal
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen

import pytest

from tests.bases import tiny
from tests.images.tree import Tree
from tests.images.watching import (
    BROUGHT_BY,
    WRITABLE,
    foreign_libraries,
    ready_after,
    report,
    status,
)
from tests.ports import free_port
from tests.waiting import HANG


@dataclass(frozen=True)
class Worker:
    child: "Popen[bytes]"
    url: str
    took: float
    log: Path


@pytest.fixture(scope="module")
def worker(worker_tree: Tree, database_url: str, redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> Worker:
    """`CMD` of the image on a tiny model that its user may read and not write."""
    port, logs = free_port(), tmp_path_factory.mktemp("worker")
    models = worker_tree.tmp / "models"
    models.mkdir()
    model = tiny("llama", models)
    for file in model.iterdir():  # docker-compose.yml asks for that
        file.chmod(0o644)
    env = {
        "ONWARD_DATABASE_URL": database_url,
        "ONWARD_REDIS_URL": redis_url,
        "ONWARD_MODEL": "tiny",
        "ONWARD_MODELS": json.dumps({"tiny": str(model)}),
        "ONWARD_WORKER_METRICS_PORT": str(port),
        "ONWARD_THREADS": "2",
        "HF_HUB_OFFLINE": "1",
    }
    child = worker_tree.start(worker_tree.dockerfile.command("cpu"), logs / "log", **env)
    url = f"http://127.0.0.1:{port}"
    took = ready_after(child, f"{url}/readyz", logs / "log")
    return Worker(child, url, took, logs / "log")


def test_it_becomes_ready(worker: Worker) -> None:
    report("worker", start_to_ready_seconds=worker.took)
    assert status(f"{worker.url}/healthz") == 200
    assert status(f"{worker.url}/metrics") == 200


def test_intel_openmp_is_loaded_from_the_image(worker: Worker, worker_tree: Tree) -> None:
    maps = Path(f"/proc/{worker.child.pid}/maps").read_text()
    assert str(worker_tree.venv / "lib/libiomp5.so") in maps


def test_it_needs_no_library_that_the_image_has_not(worker: Worker, worker_tree: Tree) -> None:
    """What the base lacks is what the Dockerfile's packages bring, and each of them brings something."""
    packages = worker_tree.dockerfile.packages("cpu")
    assert foreign_libraries(worker.child.pid, worker_tree.root) == {BROUGHT_BY[name] for name in packages}


def test_the_health_check_tells_a_living_worker(worker: Worker, worker_tree: Tree) -> None:
    *command, url = worker_tree.dockerfile.health("cpu")
    assert worker_tree.run([*command, url.replace("http://127.0.0.1:9100", worker.url)]).returncode == 0
    assert worker_tree.run([*command, f"http://127.0.0.1:{free_port()}/healthz"]).returncode == 1


def test_its_user_can_write_nothing_but_its_folders(worker_tree: Tree) -> None:
    found = worker_tree.run(["python", "-c", WRITABLE, str(worker_tree.root)]).stdout.split()
    assert found
    own = worker_tree.own
    assert own == [worker_tree.tmp, worker_tree.state]
    assert [path for path in map(Path, found) if not any(path.is_relative_to(folder) for folder in own)] == []


def test_an_adapter_can_be_verified_from_this_image(worker_tree: Tree, database_url: str) -> None:
    """The command is there and reaches the database; that replay is right is tested elsewhere."""
    done = worker_tree.run(["onward", "adapters", "verify", "ft:none"], ONWARD_DATABASE_URL=database_url)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr


def test_it_holds_the_engine_and_no_installer(worker_tree: Tree) -> None:
    names = {path.name for path in worker_tree.packages.iterdir()}
    assert {"vllm", "torch", "peft", "safetensors"} <= names
    assert "pip" not in names
    report("worker", installed_megabytes=worker_tree.size() / 1e6)


def test_sigterm_ends_it_in_order(worker: Worker) -> None:
    """The last test of this file: the worker is gone after it."""
    worker.child.send_signal(signal.SIGTERM)
    assert worker.child.wait(HANG) == 0, worker.log.read_text()[-3000:]
