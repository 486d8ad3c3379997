"""A worker that is killed again and again under `onward up`: each time another, and no job notices."""

import json
import os
import signal

import pytest
from openai import OpenAI

from cli import beside
from cli.client import service as published
from tests.api.examples import choices, jsonl
from tests.cli.local.test_up import component
from tests.waiting import until

# A killed worker's jobs are another's after three seconds; the torch scorer is ready sooner than the engine.
QUICK = {"ONWARD_SCORER": "torch", "ONWARD_LEASE_SECONDS": "3", "ONWARD_HEARTBEAT_SECONDS": "0.2"}
STEPS = 60


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_a_killed_worker_is_started_again_and_its_jobs_end_with_the_hashes_of_jobs_left_alone(up, home, kills):
    with up(**QUICK) as service:
        service.announced()
        at = published(home)
        jobs = OpenAI(base_url=at["base_url"], api_key=at["api_key"]).fine_tuning.jobs
        files = OpenAI(base_url=at["base_url"], api_key=at["api_key"]).files
        file = files.create(file=("rows.jsonl", jsonl(*choices(4))), purpose="fine-tune").id

        def submit() -> str:
            more = {"onward": {"steps": STEPS, "batch_size": 4, "rank": 2}}
            return jobs.create(model="tiny", training_file=file, seed=0, extra_body=more).id

        def ended(job: str) -> bool:
            found = jobs.retrieve(job)
            assert found.status in ("queued", "running", "succeeded"), found.error
            return found.status == "succeeded"

        made = [submit()]
        until(lambda: ended(made[0]), lambda: service.said)
        inside = 0  # kills in the middle of a job
        for number in range(1, kills + 1):
            made.append(submit())
            until(lambda: jobs.retrieve(made[-1]).onward["step"] > 0, lambda: service.said)
            before = component(home, "worker-tiny")
            os.kill(before.pid, signal.SIGKILL)
            inside += jobs.retrieve(made[-1]).status == "running"
            until(lambda: component(home, "worker-tiny").restarts == number, lambda: service.said)  # noqa: B023
            until(lambda: component(home, "worker-tiny").state == "ready", lambda: service.said)
        assert inside >= kills / 2, "the kills must hit jobs for this test to say anything"
        for job in made:
            until(lambda job=job: ended(job), lambda: service.said)

        hashes = {jobs.retrieve(job).onward["adapter"]["sha256"] for job in made}
        assert len(hashes) == 1
        verdicts = [json.loads(service.beside("adapters", "verify", job, "--json").stdout) for job in made[-2:]]
        assert [(v["ok"], v["sha256"]) for v in verdicts] == [(True, *hashes)] * 2
        up_to_now = beside.read(home)
        assert up_to_now is not None
        assert {c.name: c.restarts for c in up_to_now.components if c.restarts} == {"worker-tiny": kills}
        assert service.said.count("worker-tiny ended (exit -9: SIGKILL") == kills
