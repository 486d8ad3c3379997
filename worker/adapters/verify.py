"""Whether a published adapter is what its journal says: rebuilt from the rows alone. Knows no engine and no cache."""

import time
from dataclasses import dataclass
from pathlib import Path

from db.contract.tokens import base_model
from db.session import sessions
from db.settings import Settings
from db.worker import journal
from db.worker.published import recorded
from worker.adapters import peft_files
from worker.runs import recipes
from worker.runs.replay import replay


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
    settings = Settings(database_url=database_url, home=home)
    started = time.perf_counter()
    with sessions(database_url).begin() as session:
        row = recorded(session, adapter)
        if row is None:
            raise NoSuchAdapter(adapter)
        losses = journal.read(session, row.job_id, row.step)
    base = base_model.load(row.spec.model, settings)
    layout = recipes.layout(row.spec, base)
    point = replay(recipes.method(row.spec, layout), losses)
    rebuilt = peft_files.sha256(peft_files.weights(layout, point.params))
    file = Path(row.path) / peft_files.WEIGHTS
    on_disk = peft_files.sha256(file.read_bytes()) if file.is_file() else None
    seconds = time.perf_counter() - started
    return Verified(row.name, row.job_id, len(losses), rebuilt, row.sha256, on_disk, seconds)
