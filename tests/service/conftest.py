"""One stage a session, with a worker that is never harmed, and jobs of a size to be disturbed in."""

import io
import json
import shutil
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from openai import OpenAI

from tests.bases import tiny
from tests.service.processes import Process
from tests.service.stage import Stage

MODELS = ("steady", "harmed", "engine")
WORDS = ("great", "moving", "long", "boring", "small", "quick", "brown", "lazy")
Submit = Callable[..., str]


def rows(count: int, start: int = 0) -> bytes:
    """Choice rows, no two alike and of different lengths."""
    lines = []
    for i in range(start, start + count):
        words = " ".join(WORDS[(i * 5 + j * 3) % 8] for j in range(i % 4 + 1))
        row = {"prompt": f"the film {i} was {words}. It was", "choices": [" terrible", " great"], "label": i % 2}
        lines.append(json.dumps(row))
    return ("\n".join(lines) + "\n").encode()


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    home = Path(tempfile.mkdtemp(prefix="onward-stage-"))
    home.chmod(0o711)  # the database's own user must get through
    made = Stage(home, tiny("llama", home), MODELS)
    try:
        made.start()
        yield made
    finally:
        made.stop()
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def steady(stage: Stage) -> Process:
    """The worker of "steady"."""
    return stage.worker("steady", scorer="torch")


@pytest.fixture(scope="session")
def client(stage: Stage) -> OpenAI:
    return stage.tenant("first")


@pytest.fixture
def harmed(stage: Stage) -> Iterator[Callable[..., list[Process]]]:
    """Starts workers of "harmed", `count` at once, and gives them when all are ready; none survives the test."""
    started: list[Process] = []

    def start(count: int = 1, **env: str) -> list[Process]:
        workers = [stage.worker("harmed", scorer="torch", wait=False, fork=True, **env) for _ in range(count)]
        started.extend(workers)
        for worker in workers:
            stage.ready(worker)
        return workers

    yield start
    for worker in started:
        worker.kill()


@pytest.fixture(scope="session")
def submit() -> Submit:
    """Submits a job on the same rows each time: submit(client, model, steps=..., rank=..., ...) -> its id."""

    def create(client: OpenAI, model: str, **onward: Any) -> str:
        train, valid = (
            client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id
            for data in (rows(32), rows(16, start=100))
        )
        about = {"steps": 250, "batch_size": 4, "rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"], "seed": 7}
        about |= {"method": "mezo", "eps": 1e-2, "learning_rate": 1e-2, "eval_every": 50, "eval_rows": 16}
        job = client.fine_tuning.jobs.create(
            model=model, training_file=train, validation_file=valid, extra_body={"onward": about | onward}
        )
        return job.id

    return create


@pytest.fixture
def saved(tmp_path: Path, stage: Stage) -> Callable[[OpenAI, str], Path]:
    """Downloads a job's adapter and unpacks it: saved(client, job_id) -> the folder."""

    def save(client: OpenAI, job_id: str) -> Path:
        folder = tmp_path / job_id
        with tarfile.open(fileobj=io.BytesIO(stage.download(client, job_id))) as archive:
            archive.extractall(folder, filter="data")
        return folder

    return save
