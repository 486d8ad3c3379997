"""Every script of docs/examples runs as its page says, against the real service where it needs one."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.following import ROOT
from tests.service.conftest import rows
from tests.waiting import HANG

EXAMPLES = ROOT / "docs" / "examples"


@pytest.fixture
def run(tmp_path: Path):
    """Runs an example in a folder of its own; what it prints."""

    def started(name: str, *arguments: object, **env: str) -> str:
        done = subprocess.run(
            [sys.executable, str(EXAMPLES / name), *map(str, arguments)],
            cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(ROOT), **env},
            capture_output=True, text=True, timeout=HANG,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    return started


def test_the_page_names_every_script():
    named = set(re.findall(r"`(\w+\.py)", (EXAMPLES / "README.md").read_text()))
    assert named == {path.name for path in EXAMPLES.glob("*.py")}


def test_a_journal_gives_the_same_bits(run):
    said = run("replay.py")
    before, after = re.findall(r"loss (\S+) at step", said)
    assert float(after) < 0.01 * float(before)
    assert "equal to the bit" in said


def test_train_price_and_use(stage, steady, client, run, tmp_path):
    """The price said without a service is the service's own, and the adapter that comes out answers in PEFT."""
    for name, data in (("train.jsonl", rows(32)), ("valid.jsonl", rows(16, start=100))):
        (tmp_path / name).write_bytes(data)
    url = {"OPENAI_BASE_URL": f"{stage.url}/v1", "OPENAI_API_KEY": client.api_key}
    said = run("train.py", "train.jsonl", "valid.jsonl", "steady", 100, **url)
    assert "Job succeeded: 100 steps" in said
    (job,) = re.findall(r"^(ftjob-\w+): ", said, re.M)
    priced = run("price.py", stage.base, "train.jsonl")
    (training,) = re.findall(r"^mezo: 100 steps .*: (\d+) scored tokens$", priced, re.M)
    ours = client.fine_tuning.jobs.retrieve(job).model_extra["onward"]
    whole_epochs = 32 / ours["spec"]["batch_size"]
    assert 100 % whole_epochs == 0, "for the price of another seed to be the same"
    assert int(training) == ours["price"]["training"]
    answer = run("use_adapter.py", stage.base, "adapter", "the film 3 was great. It was", " terrible", " great")
    assert re.match(r"' (terrible|great)' \{", answer)
