"""Case 15: an adapter store that is lost is built again from the journal."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator

from tests.chaos.cases.ground import Claim, Ground
from tests.chaos.fleet import models_of
from tests.waiting import HANG

WEIGHTS = "adapter_model.safetensors"


def lost_store(ground: Ground) -> Iterator[Claim]:
    """15: every adapter comes back to the bit, and its tenant's download never went away."""
    tenant = ground.tenant("bystander")
    with ground.crew(ground.post()):
        jobs = [ground.submit(tenant, steps=30, seed=seed) for seed in (1, 2)]
        ground.over(*jobs)
    recorded = {job: ground.fleet.whole(tenant, job) for job in jobs}
    store = ground.fleet.home / "adapters"
    for job in jobs:
        shutil.rmtree(store / job)
    env = {
        **os.environ,
        "ONWARD_DATABASE_URL": ground.fleet.database_url,
        "ONWARD_HOME": str(ground.fleet.home),
        "ONWARD_MODELS": models_of(ground.fleet),
    }
    done = subprocess.run(
        [sys.executable, "-m", "cli", "adapters", "rebuild", *jobs],
        env=env, capture_output=True, text=True, timeout=HANG,
    )  # fmt: skip
    yield Claim(
        "`onward adapters rebuild` ends well", done.returncode == 0, f"exit {done.returncode} {done.stderr[-200:]}"
    )
    found = {
        job: hashlib.sha256((store / job / WEIGHTS).read_bytes()).hexdigest()
        if (store / job / WEIGHTS).exists()
        else None
        for job in jobs
    }
    same = sum(found[job] == recorded[job] for job in jobs)
    yield Claim("every adapter is built again to the bit", same == len(jobs), f"{same} of {len(jobs)}")
    yield ground.whole(tenant, *jobs)
