"""A run that follows from gradients: a worker that dies between two kept points, and what its adapter promises."""

import json

import pytest
from openai import NotFoundError
from sqlalchemy import select

from db.contract import journal_row
from db.tables import JournalStep, Point
from tests.service.conftest import rows
from tests.service.stage import MORTAL
from worker.adapters import verify

EVERY = 25  # steps between evaluations: where nothing else makes a point


@pytest.fixture
def job(stage, harmed, client):
    (worker,) = harmed(**MORTAL, ONWARD_POINT_STEPS="1000000")
    train, valid = (
        client.files.create(file=("rows.jsonl", data), purpose="fine-tune").id for data in (rows(32), rows(16, 100))
    )
    about = {"steps": 200, "batch_size": 4, "rank": 2, "targets": ["q_proj", "v_proj"], "seed": 7}
    about |= {"method": "first_order", "learning_rate": 1e-3, "eval_every": EVERY, "eval_rows": 16}
    about |= {"on_divergence": "continue"}
    made = client.fine_tuning.jobs.create(
        model="harmed", training_file=train, validation_file=valid, extra_body={"onward": about}
    )
    assert made.onward["replay"] == "snapshots"
    return made.id, worker


def kept(stage, job_id: str) -> list[int]:
    with stage.factory.begin() as session:
        return sorted(session.scalars(select(Point.step).where(Point.job_id == job_id).distinct()))


def test_sigkill_between_two_points(stage, harmed, client, job, monkeypatch):
    job_id, worker = job
    stage.reached(job_id, EVERY)
    worker.kill()
    left_at = stage.left(job_id)
    assert left_at % EVERY == 0, "no row is ahead of what can be gone on from"
    assert left_at < 200
    assert kept(stage, job_id)[-1] == left_at
    assert set(kept(stage, job_id)) <= {left_at, stage.job(job_id).best_step}
    refused(client, job_id, left_at - 1)

    (second,) = harmed()
    adapter = stage.whole(client, job_id)
    assert [x["step"] for x in second.lines("replayed")] == [left_at]
    assert kept(stage, job_id) == [], "what is published is the adapter"
    monkeypatch.setenv("ONWARD_MODELS", json.dumps({name: str(stage.base) for name in stage.models}))
    found = verify.verify(stage.database_url, stage.home, job_id)
    assert (found.replay, found.sha256, found.in_row) == ("snapshots", adapter, True)
    with pytest.raises(verify.NotReplayed, match="cannot be rebuilt: its steps followed from gradients"):
        verify.rebuild(stage.database_url, stage.home, job_id)
    other(stage, job_id, found.step)


def refused(client, job_id: str, step: int) -> None:
    """A step that is not kept, before anything is queued."""
    name = client.fine_tuning.jobs.checkpoints.list(job_id).data[0].fine_tuned_model_checkpoint
    with pytest.raises(NotFoundError, match="followed from gradients") as error:
        client.models.retrieve(f"{name.rpartition('-')[0]}-{step}")
    assert error.value.code == "step_not_kept"


def other(stage, job_id: str, step: int) -> None:
    """Where the row of its step tells of other parameters the adapter is not what was trained."""
    with stage.factory.begin() as session:
        row = session.get_one(JournalStep, (job_id, step - 1))
        row.losses = [*row.losses[: -journal_row.DIGEST], *journal_row.hashed("0" * 64)]
    found = verify.verify(stage.database_url, stage.home, job_id)
    assert (found.ok, found.in_row) == (False, False)
