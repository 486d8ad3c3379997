"""A finished job without an engine: its journal is made up, everything that follows from it is real."""

from dataclasses import replace
from pathlib import Path

from openai.types.fine_tuning import FineTuningJob
from sqlalchemy.orm import Session, sessionmaker

from db import workers
from db.contract.tokens.base_model import open_base
from db.ids import adapter_name
from db.worker import journal, leases
from db.worker.journal import Evaluated, Step
from tests.api.conftest import Client
from tests.api.examples import choices, submit, upload
from tests.waiting import HANG
from worker.adapters.publish import publish
from worker.runs import recipes
from worker.runs.replay import replay
from worker.slices.receipts import Receipts

DRIFT = 0.0456  # nats a token


def train(
    who: Client, factory: sessionmaker[Session], base_folder: Path, home: Path, receipts: Receipts | None = None
) -> FineTuningJob:
    """A job of `who` on the tiny base model that a worker claimed, stepped through and published under `home`, with a
    receipt of `receipts` where they are given."""
    held_out = upload(who, *choices(3), name="valid.jsonl")
    job = submit(who, upload(who, *choices(4)), {"steps": 6}, validation_file=held_out)
    with factory.begin() as session:
        worker = workers.register(session, model="tiny", host="here", pid=1)
        claim = leases.claim(session, job.id, worker, HANG, 5)
    assert claim is not None
    spec, base = claim.spec, open_base("tiny", str(base_folder))
    method = recipes.method(spec, recipes.layout(spec, base))
    losses = [[0.7 - 0.01 * (step + probe) for probe in range(method.most)] for step in range(spec.steps)]
    point = replay(method, losses)
    name = adapter_name(spec.model, claim.tenant_id, spec.suffix, job.id)
    published = publish(home / "adapters", job.id, name, spec, base, point)
    with factory.begin() as session:
        steps = [Step(i, row, 10) for i, row in enumerate(losses)]
        held = [Evaluated(0, 0.69, 1 / 3, 3, 5), Evaluated(spec.steps, 0.61, 2 / 3, 3, 5)]
        journal.flush(session, claim, steps, held, (spec.steps, 0.61))
        receipt = receipts and receipts.issue(session, job.id, base.path, published)
        journal.finish(session, claim, replace(published, receipt=receipt, drift=DRIFT))
    return who.openai.fine_tuning.jobs.retrieve(job.id)
