"""`onward jobs` against a real API; no worker runs, so states change at once."""

import json

import pytest

from tests.api.examples import choices, jsonl
from tests.cli.conftest import complaint, read
from tests.cli.trained import DRIFT, train


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(*choices(4)))
    return path


@pytest.fixture(scope="module")
def trained(anna, factory, base_folder, tmp_path_factory):
    return train(anna, factory, base_folder, tmp_path_factory.mktemp("home"))


def submit(onward, rows, *words):
    return read(onward("jobs", "submit", str(rows), "--steps", "3", "--rank", "2", *words, "--json"))


def test_submit_says_all_it_was_told(onward, rows):
    job = submit(
        onward, rows, "--validation", str(rows), "--suffix", "mine", "--seed", "5", "--metadata", "team=a",
        "--set", "eps=0.02", "--set", 'targets=["q_proj"]', "--method", "lozo", "--batch-size", "2",
    )  # fmt: skip
    spec = job["onward"]["spec"]
    assert (job["model"], job["seed"], job["suffix"], job["metadata"]) == ("tiny", 5, "mine", {"team": "a"})
    assert (spec["steps"], spec["batch_size"], spec["adapter"]["rank"]) == (3, 2, 2)
    assert spec["adapter"]["targets"] == ["q_proj"]
    assert (spec["method"]["name"], spec["method"]["eps"]) == ("lozo", 0.02)
    assert job["validation_file"] != job["training_file"]


def test_an_adapter_that_acts_on_the_answer_can_be_asked_for_and_is_shown(onward, rows):
    job = submit(onward, rows, "--set", "activation=answer", "--set", "invocation= was")
    assert (job["onward"]["spec"]["adapter"]["activation"], job["onward"]["invocation"]) == ("answer", " was")
    assert "acting from the last ' was' on" in onward("jobs", "show", job["id"]).stdout
    plain = onward("jobs", "show", submit(onward, rows)["id"]).stdout
    assert "alpha" in plain
    assert "acti" not in plain
    assert "onward.invocation" in complaint(onward("jobs", "submit", str(rows), "--set", "invocation=x", ok=False))


def test_submit_takes_a_file_that_is_there(onward, rows):
    file = read(onward("files", "upload", str(rows), "--json"))["id"]
    assert read(onward("jobs", "submit", file, "--steps", "2", "--json"))["training_file"] == file


def test_a_job_is_listed_shown_paused_resumed_and_cancelled(onward, rows):
    job = submit(onward, rows)["id"]
    assert job in onward("jobs", "list").stdout
    shown = onward("jobs", "show", job).stdout
    assert "queued" in shown
    assert "worker" in shown  # the event that says that none serves the model
    assert read(onward("jobs", "pause", job, "--json"))["status"] == "paused"
    assert "queued" in onward("jobs", "resume", job).stdout
    assert "cancelled" in onward("jobs", "cancel", job).stdout
    assert "cancelled" in complaint(onward("jobs", "cancel", job, ok=False))
    assert f"{job} was cancelled at step 0" in complaint(onward("jobs", "watch", job, ok=False))


def test_lists_can_be_narrowed_by_metadata(onward, rows):
    job = submit(onward, rows, "--metadata", "run=narrow")["id"]
    assert [j["id"] for j in read(onward("jobs", "list", "--metadata", "run=narrow", "--json"))] == [job]


def test_mistakes_are_told_with_what_to_look_at(onward, rows):
    said = complaint(onward("jobs", "submit", str(rows), "--set", "epz=1", ok=False))
    assert "onward.epz" in said
    assert "Did you mean 'onward.eps'" in said
    assert "KEY=VALUE" in complaint(onward("jobs", "submit", str(rows), "--set", "eps", ok=False))
    assert "rank" in complaint(onward("jobs", "submit", str(rows), "--rank", "1000", ok=False))
    assert "does not exist" in complaint(onward("jobs", "submit", str(rows), "--model", "huge", ok=False))


def test_another_tenants_job_does_not_exist(onward, rows, ben, monkeypatch):
    job = submit(onward, rows)["id"]
    monkeypatch.setenv("ONWARD_API_KEY", ben.secret)
    assert job in complaint(onward("jobs", "show", job, ok=False))
    assert job not in onward("jobs", "list", "--limit", "100").stdout


def test_an_ended_job_is_watched_to_its_end_at_once(onward, trained):
    said = onward("jobs", "watch", trained.id).stdout
    assert "step 6/6" in said
    assert f"adapter {trained.fine_tuned_model}" in said
    events = [json.loads(line) for line in onward("jobs", "watch", trained.id, "--json").stdout.splitlines()]
    assert [e["created_at"] for e in events] == sorted(e["created_at"] for e in events)
    metrics = [e["data"] for e in events if e["type"] == "metrics"]
    assert metrics[-2]["step"] == 6
    assert metrics[-2]["valid_loss"] == pytest.approx(0.61)
    assert metrics[-1] == {"step": 6, "total_steps": 6, "drift": DRIFT}


def test_show_has_the_checkpoints(onward, trained):
    found = read(onward("jobs", "show", trained.id, "--json"))
    assert [c["step_number"] for c in found["checkpoints"]] == [6, 0]
    assert "0.610" in onward("jobs", "show", trained.id).stdout


def test_show_has_the_drift_of_what_was_published(onward, rows, trained):
    assert trained.model_extra["onward"]["drift"] == DRIFT
    assert "0.0456 nats a token" in onward("jobs", "show", trained.id).stdout
    waiting = submit(onward, rows)
    assert waiting["onward"]["drift"] is None
    assert "nats a token" not in onward("jobs", "show", waiting["id"]).stdout
