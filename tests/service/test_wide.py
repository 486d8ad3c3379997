"""A step of several hundred thousand tokens in a real worker: others step beside it, and its own cancel is heard."""

import io

import pytest
from sqlalchemy import func, select

from db.tables import JournalStep
from tests.service.conftest import rows
from tests.waiting import until

ROWS, QUERIES = 256, 32  # as wide as ONWARD_MAX_STEP_TOKENS lets it be


@pytest.fixture
def wide(client):
    """The id of a job whose one step is 64 probes on 256 rows."""
    data = ("rows.jsonl", io.BytesIO(rows(ROWS)))
    file = client.files.create(file=data, purpose="fine-tune").id
    about = {"steps": 2, "batch_size": ROWS, "rank": 2, "alpha": 4.0, "targets": ["q_proj", "v_proj"], "seed": 7}
    about |= {"method": "mezo", "eps": 1e-2, "learning_rate": 1e-2, "queries": QUERIES, "held_out": 0}
    made = client.fine_tuning.jobs.create(model="harmed", training_file=file, extra_body={"onward": about})
    return made.id


def test_a_small_tenant_steps_beside_a_wide_step_whose_own_cancel_is_heard(stage, harmed, client, submit, wide):
    harmed()
    assert stage.job(wide).price_tokens / 2 > 200_000
    until(lambda: stage.job(wide).state == "running", "the wide one is under way")
    other = stage.tenant("small")
    small = submit(other, "harmed", steps=40, eval_every=40)
    stage.whole(other, small)
    assert stage.job(wide).step == 0, "forty steps of the small one lie within one of the wide one"
    client.fine_tuning.jobs.cancel(wide)
    until(lambda: stage.job(wide).state == "cancelled", "cancelled")
    left = stage.job(wide)
    assert (left.step, left.scored_tokens) == (0, 0), "the step under way is given up, not waited for"
    with stage.factory.begin() as session:
        assert session.scalar(select(func.count()).where(JournalStep.job_id == wide)) == 0
