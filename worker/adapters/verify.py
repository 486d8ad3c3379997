"""A published adapter rebuilt from the rows alone: compared, or stored again. Knows no engine and no cache."""

import time
from dataclasses import dataclass, replace
from pathlib import Path

from db.contract.tokens import base_model
from db.contract.tokens.base_model import Base
from db.session import sessions
from db.settings import Settings
from db.worker import journal
from db.worker.published import Recorded, moved, recorded
from worker.adapters import peft_files
from worker.adapters.publish import publish
from worker.runs import rebuilding, recipes
from worker.runs.replay import Point


class NoSuchAdapter(LookupError):
    """Neither the name, nor the id, nor the job's id of a published adapter."""


@dataclass(frozen=True)
class Verified:
    """`sha256` is of the rebuilt adapter_model.safetensors, `expected` what was recorded when it was published,
    `on_disk` of the file in the worker's folder (None where there is none)."""

    name: str
    job_id: str
    step: int
    sha256: str
    expected: str
    on_disk: str | None
    seconds: float

    @property
    def ok(self) -> bool:
        return self.sha256 == self.expected and self.on_disk in (None, self.expected)


def verify(database_url: str, home: Path, adapter: str) -> Verified:
    """Replay the journal of `adapter` (its name, id or job's id) and compare. Base models are those of the settings.

    Raises NoSuchAdapter, and UnknownBase where the base model is not configured here.
    """
    return _replayed(database_url, home, adapter)[0]


def rebuild(database_url: str, home: Path, adapter: str) -> Verified:
    """Replay the journal of `adapter` and store what comes out under `home`, where its row then says that it lies.

    Nothing is stored, and nothing on disk is touched, where the replay is not what was recorded. Raises as `verify`
    does, and OSError.
    """
    found, row, base, point = _replayed(database_url, home, adapter)
    if found.sha256 != found.expected:
        return found
    stored = publish(home / "adapters", row.job_id, row.name, row.spec, base, point)
    with sessions(database_url).begin() as session:
        moved(session, row.job_id, stored.path)
    return replace(found, on_disk=stored.sha256)


def _replayed(database_url: str, home: Path, adapter: str) -> tuple[Verified, Recorded, Base, Point]:
    settings = Settings(database_url=database_url, home=home)
    started = time.perf_counter()
    with sessions(database_url).begin() as session:
        row = recorded(session, adapter)
        if row is None:
            raise NoSuchAdapter(adapter)
        history = journal.history(session, row.job_id, row.step)
    base = base_model.load(row.spec.model, settings)
    layout = recipes.layout(row.spec, base)
    point = rebuilding.rebuild(history, base)
    rebuilt = peft_files.sha256(peft_files.weights(layout, point.params))
    file = Path(row.path) / peft_files.WEIGHTS
    on_disk = peft_files.sha256(file.read_bytes()) if file.is_file() else None
    seconds = time.perf_counter() - started
    return Verified(row.name, row.job_id, history.step, rebuilt, row.sha256, on_disk, seconds), row, base, point
