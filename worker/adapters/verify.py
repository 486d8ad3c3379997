"""A published adapter rebuilt from the rows alone, or held against its row's hash. Knows no engine and no cache."""

import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from db import files
from db.contract import journal_row
from db.contract.tokens import base_model
from db.contract.tokens.base_model import Base
from db.session import sessions
from db.settings import Settings
from db.store.opening import Stores, carrying
from db.worker import journal
from db.worker.published import Recorded, moved, recorded
from worker.adapters import peft_files
from worker.adapters.publish import publish
from worker.runs import fingerprint, rebuilding, recipes
from worker.runs.replay import Point


class NoSuchAdapter(LookupError):
    """Neither the name, nor the id, nor the job's id of a published adapter."""


class NotReplayed(ValueError):
    """No journal leads to the adapter."""


@dataclass(frozen=True)
class Verified:
    """`sha256` is of the rebuilt adapter_model.safetensors, `expected` what was recorded when it was published,
    `on_disk` of the file in the worker's folder (None where there is none).

    With `replay` snapshots nothing can be rebuilt: `sha256` is of the published file then, and `in_row` says whether
    its parameters have the hash that the journal's row of its step ends with (None at step 0, which has no row)."""

    name: str
    job_id: str
    step: int
    sha256: str
    expected: str
    on_disk: str | None
    seconds: float
    replay: Literal["journal", "snapshots"] = "journal"
    in_row: bool | None = None

    @property
    def ok(self) -> bool:
        return self.sha256 == self.expected and self.on_disk in (None, self.expected) and self.in_row is not False


def verify(database_url: str, home: Path, adapter: str) -> Verified:
    """Replay the journal of `adapter` (its name, id or job's id) and compare; where it cannot be replayed compare what
    is published with the hash in its row. Base models are those of the settings.

    Raises NoSuchAdapter, and UnknownBase where the base model is not configured here.
    """
    settings = Settings(database_url=database_url, home=home)
    with sessions(database_url).begin() as session:
        row = recorded(session, adapter)
    if row is not None and row.spec.method.replay == "snapshots":
        return _compared(settings, row)
    return _replayed(database_url, home, adapter)[0]


def rebuild(database_url: str, home: Path, adapter: str) -> Verified:
    """Replay the journal of `adapter` and store what comes out under `home`, where its row then says that it lies.

    Nothing is stored, and nothing on disk is touched, where the replay is not what was recorded. Raises as `verify`
    does, OSError, and NotReplayed for an adapter that followed from gradients.
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
        if row.spec.method.replay == "snapshots":
            raise NotReplayed(f"{row.name} cannot be rebuilt: its steps followed from gradients, which no journal has")
        history = journal.history(session, row.job_id, row.step)
    base = base_model.load(row.spec.model, settings)
    layout = recipes.layout(row.spec, base)
    point = rebuilding.rebuild(history, base)
    rebuilt = peft_files.sha256(peft_files.weights(layout, point.params))
    on_disk = _on_disk(row)
    seconds = time.perf_counter() - started
    return Verified(row.name, row.job_id, history.step, rebuilt, row.sha256, on_disk, seconds), row, base, point


def _compared(settings: Settings, row: Recorded) -> Verified:
    """The published file against what was recorded and, by its parameters, against the row of its step."""
    started = time.perf_counter()
    with carrying(sessions(settings.database_url), Stores(settings)).begin() as session:
        tar = b"".join(files.read(session, row.file_id))
        losses = journal.history(session, row.job_id, row.step).losses
    weights = peft_files.unpacked(tar)[peft_files.WEIGHTS]
    base = base_model.load(row.spec.model, settings)
    in_row = None
    if row.step:
        params = peft_files.params(recipes.layout(row.spec, base), weights)
        in_row = fingerprint.sha256(params) == journal_row.sha256(losses[-1])
    sha256, seconds = peft_files.sha256(weights), time.perf_counter() - started
    return Verified(row.name, row.job_id, row.step, sha256, row.sha256, _on_disk(row), seconds, "snapshots", in_row)


def _on_disk(row: Recorded) -> str | None:
    file = Path(row.path) / peft_files.WEIGHTS
    return peft_files.sha256(file.read_bytes()) if file.is_file() else None
