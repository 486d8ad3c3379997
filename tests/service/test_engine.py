"""The main job on the real engine: two tenants in one cohort, and a vLLM worker killed in the middle of a step."""

import json
import signal
import time

import openai
import pytest
from sqlalchemy import func, select

from cli.demo.peft_loss import held_out
from db.tables import JournalStep, Lease
from tests.service.conftest import rows
from tests.service.stage import UNBROKEN


@pytest.fixture(scope="module")
def second(stage):
    return stage.tenant("second")


@pytest.fixture(scope="module")
def pair(client, second, submit):
    """A job of each tenant, both waiting when the engine starts."""
    lozo = {"rank": 5, "targets": ["q_proj", "o_proj", "down_proj"], "method": "lozo", "window_rank": 1}
    return [(client, submit(client, "engine", rank=2)), (second, submit(second, "engine", **lozo))]


@pytest.fixture(scope="module")
def engine(stage, pair):
    worker = stage.worker("engine", scorer="vllm", ONWARD_SLICE_SECONDS="2")
    yield worker
    worker.kill()


def test_two_tenants_train_in_one_cohort_and_peft_agrees(stage, engine, pair, saved, tmp_path):
    hashes = {stage.whole(who, job) for who, job in pair}
    assert len(hashes) == 2
    assert engine.metric("onward_steps_total") == 500
    alone = engine.log.read_text()[-6000:]
    assert engine.metric("onward_adapters_per_batch_count") < 300, alone  # nearly every batch held probes of both
    valid = tmp_path / "valid.jsonl"
    valid.write_bytes(rows(16, start=100))
    for who, job in pair:
        config = json.loads((saved(who, job) / "adapter_config.json").read_text())
        assert config["base_model_name_or_path"] == "engine"
        best = min(
            who.fine_tuning.jobs.checkpoints.list(job, limit=100).data,
            key=lambda c: (c.metrics.valid_loss, c.step_number),
        )
        found = held_out(str(stage.base), saved(who, job), valid, 16)
        assert found.loss == pytest.approx(best.metrics.valid_loss, abs=1e-4)
    (client, _), (other, foreign) = pair
    with pytest.raises(openai.NotFoundError):
        client.fine_tuning.jobs.retrieve(foreign)
    _, file, _ = other.fine_tuning.jobs.retrieve(foreign).result_files
    with pytest.raises(openai.NotFoundError):
        client.files.content(file)


def test_activated_adapters_from_post_to_peft(stage, engine, client, second, submit, saved, tmp_path):
    """Two tenants with the same texts: each computes its own prompts, once; PEFT activates what comes out."""
    computed, found = (f'onward_prompts_total{{model="engine",outcome="{x}"}}' for x in ("computed", "found"))
    before = engine.metric(computed)
    jobs = [(who, submit(who, "engine", activation="answer", seed=seed)) for who, seed in ((client, 1), (second, 2))]
    assert len({stage.whole(who, job) for who, job in jobs}) == 2
    own = 2 * (32 + 16)
    # And once a tenant, what stands before the text that drift is measured on.
    assert own <= engine.metric(computed) - before <= own + 2
    assert engine.metric(found) > 20 * engine.metric(computed)
    plain = submit(client, "engine", seed=1, steps=1)
    assert stage.job(jobs[0][1]).price_tokens < stage.job(plain).price_tokens * 250 / 2
    valid = tmp_path / "valid.jsonl"
    valid.write_bytes(rows(16, start=100))
    for who, job in jobs:
        spec = who.fine_tuning.jobs.retrieve(job).onward["spec"]
        config = json.loads((saved(who, job) / "adapter_config.json").read_text())
        assert config["alora_invocation_tokens"] == spec["adapter"]["invocation"] != []
        best = min(
            who.fine_tuning.jobs.checkpoints.list(job, limit=100).data,
            key=lambda c: (c.metrics.valid_loss, c.step_number),
        )
        assert best.step_number > 0
        outside = held_out(str(stage.base), saved(who, job), valid, 16)
        assert outside.loss == pytest.approx(best.metrics.valid_loss, abs=1e-4)


def test_sigkill_in_the_middle_of_a_step_and_sigterm_in_order(stage, engine, client, submit, capsys):
    jobs = [submit(client, "engine", seed=seed, steps=1000) for seed in (1, 2)]
    for job in jobs:
        stage.reached(job, 20)
    engine.kill()
    left_at = [stage.left(job) for job in jobs]
    assert max(left_at) < 1000
    for job in jobs:
        stage.lapse(job)
    second = stage.worker("engine", scorer="vllm", ONWARD_SELF_CHECK="false", **UNBROKEN)
    for job in jobs:
        stage.whole(client, job)
    assert sorted(x["step"] for x in second.lines("replayed")) == sorted(left_at)
    assert second.metric("onward_canaries_total") >= 1
    assert second.metric("onward_canary_nats") < 1e-4

    busy = submit(client, "engine", steps=1_000_000)  # a drain ends the step, not the slice
    stage.reached(busy, 20)
    step = second.metric("onward_step_seconds_sum") / second.metric("onward_step_seconds_count")
    second.send(signal.SIGTERM)
    begun = time.monotonic()
    assert second.died() == 0
    took = time.monotonic() - begun
    with capsys.disabled():
        print(f"\ndrain of a busy vLLM worker: {took:.2f} s, a step takes {step:.3f} s")
    left = stage.job(busy)
    assert (left.state, left.deaths) == ("queued", [])
    with stage.factory.begin() as session:
        assert session.get(Lease, busy) is None
        committed = select(func.count()).where(JournalStep.job_id == busy)
        assert session.scalar(committed) == left.step
    (ended,) = second.lines("ended")
    assert ended
    client.fine_tuning.jobs.cancel(busy)
