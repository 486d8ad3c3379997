"""What the pages show, over real rows: the tenant's own and no other's, as text and never as markup."""

import hashlib
import json
from datetime import UTC, datetime, timedelta

import pytest

from api.console.curves import curves, differences, thinned
from api.console.rendering import STATIC
from db import events
from db.tables import Job
from tests.api.examples import CHAT, CHOICE, COMPLETION, choices, jsonl, submit, upload
from tests.cli.trained import DRIFT, train

MARKUP = "<img src=x onerror=alert(1)>"


def told(factory, job, *measured):
    with factory.begin() as session:
        row = session.get(Job, job.id)
        for step, data in enumerate(measured):
            events.metrics(session, row, "measured", {"step": step, **data})


def test_what_is_vendored_is_what_was_published():
    lock = json.loads((STATIC / "vendored.json").read_text())
    for name, about in lock.items():
        assert hashlib.sha256((STATIC / name).read_bytes()).hexdigest() == about["sha256"], name
        assert (STATIC / about["licence_file"]).read_text().strip()
    theirs = {path.name for path in STATIC.iterdir()} - {"console.js", "console.css", "vendored.json"}
    assert theirs == set(lock) | {about["licence_file"] for about in lock.values()}


def test_a_page_with_all_it_loads_weighs_little(at_annas):
    total = sum((STATIC / name).stat().st_size for name in json.loads((STATIC / "vendored.json").read_text()))
    total += sum((STATIC / name).stat().st_size for name in ("console.js", "console.css"))
    assert total + len(at_annas.get("jobs").content) <= 150_000


def test_files_of_the_console_are_kept_by_browsers_and_no_others_are_served(browser):
    page = browser.get("login").text
    for name in ("htmx.min.js", "uPlot.iife.min.js", "uPlot.min.css", "console.js", "console.css"):
        assert f"/console/static/{name}?" in page
        answer = browser.get(f"static/{name}")
        assert (answer.status_code, "immutable" in answer.headers["cache-control"]) == (200, True)
        assert answer.headers["x-content-type-options"] == "nosniff"
    for name in ("vendored.json", "..%2Fsession.py", "%2e%2e/session.py", "x.js"):
        assert browser.get(f"static/{name}").status_code == 404


def test_jobs_are_listed_with_why_they_wait_and_their_price(at_annas, anna, ben):
    job = submit(anna, upload(anna, *choices(8)), suffix="mine")
    theirs = submit(ben, upload(ben, *choices(8)), suffix="theirs")
    page = at_annas.get("jobs").text
    assert "mine" in page
    assert "No worker" in page
    assert f"{job.model_extra['onward']['price_tokens']:,}" in page
    assert theirs.id not in page
    fragment = at_annas.get("jobs", **{"hx-request": "true"}).text
    assert fragment.lstrip().startswith('<div id="jobs"')
    assert 'hx-trigger="every 3s"' in fragment
    assert at_annas.get(f"jobs/{theirs.id}").status_code == 404
    assert at_annas.get(f"jobs/{theirs.id}/points").status_code == 404
    assert at_annas.get(f"compare?job={theirs.id}").status_code == 404
    assert theirs.id not in at_annas.get("files").text


def test_a_job_is_steered_from_its_page(at_annas, anna):
    job = submit(anna, upload(anna, *choices(8)))
    page = at_annas.get(f"jobs/{job.id}").text
    assert ">Pause<" in page
    assert ">Cancel<" in page
    assert at_annas.post(f"jobs/{job.id}/pause").status_code == 303
    assert ">Resume<" in at_annas.get(f"jobs/{job.id}").text
    assert at_annas.post(f"jobs/{job.id}/cancel").status_code == 303
    ended = at_annas.get(f"jobs/{job.id}", **{"hx-request": "true"}).text
    assert "cancelled" in ended
    assert "hx-trigger" not in ended
    assert ">Cancel<" not in ended
    again = at_annas.post(f"jobs/{job.id}/cancel")
    assert again.status_code in (303, 400, 409)
    assert at_annas.post(f"jobs/{job.id}/explode").status_code == 404


def test_the_page_of_a_job_has_the_drift_of_what_it_published(at_annas, anna, factory, base_folder, tmp_path):
    assert "nats a token" not in at_annas.get(f"jobs/{submit(anna, upload(anna, *choices(8))).id}").text
    job = train(anna, factory, base_folder, tmp_path)
    assert f"<dt>Drift</dt><dd>{DRIFT} nats a token from the base model</dd>" in at_annas.get(f"jobs/{job.id}").text


def test_points_are_what_the_events_tell(at_annas, anna, factory):
    job = submit(anna, upload(anna, *choices(8)))
    told(factory, job, {"train_loss": 1.5}, {"train_loss": None}, {"train_loss": 1.25, "valid_loss": 2.0})
    found = at_annas.get(f"jobs/{job.id}/points").json()
    assert not found["ended"]
    assert [(step, value) for step, _, value in found["curves"]["train"]] == [(0, 1.5), (2, 1.25)]
    assert [(step, value) for step, _, value in found["curves"]["valid"]] == [(2, 2.0)]


def test_what_is_told_again_has_its_last_value_and_thinning_keeps_the_end():
    began = datetime(2026, 1, 1, tzinfo=UTC)
    at = [began + timedelta(seconds=s) for s in range(4)]
    data = [{"step": s, "train_loss": float(v)} for s, v in ((1, 1), (2, 2), (2, 5), (3, 3))]
    assert curves(zip(data, at, strict=True), began)["train"] == [(1, 0.0, 1.0), (2, 2.0, 5.0), (3, 3.0, 3.0)]
    long = [(s, float(s), 0.0) for s in range(1001)]
    assert (len(thinned(long, 100)), thinned(long, 100)[-1]) == (92, long[-1])
    assert thinned([], 10) == []


def test_jobs_side_by_side_say_what_differs(at_annas, anna):
    file = upload(anna, *choices(8))
    jobs = [submit(anna, file, {"learning_rate": rate}) for rate in (1e-3, 2e-3)]
    page = at_annas.get("compare?" + "&".join(f"job={job.id}" for job in jobs)).text
    assert "method.learning_rate" in page
    assert "0.002" in page
    assert "batch_size" not in page
    assert differences([{"a": {"b": 1}}, {"a": {"b": 1}, "c": [1, 2]}]) == [("c", ["–", "1, 2"])]


def test_a_bad_file_is_told_with_its_line_and_a_good_one_is_shown(at_annas, anna):
    def sent(name, data):
        files = {"file": (name, data)}
        return at_annas.http.post("files", data={"csrf": at_annas.token}, files=files)

    bad = sent("bad.jsonl", jsonl(CHOICE, {"prompt": MARKUP}))
    assert bad.status_code == 400
    assert "bad.jsonl: line 2" in bad.text
    good = sent("good.jsonl", jsonl(CHAT, CHAT))
    assert good.status_code == 303
    assert "good.jsonl" in at_annas.get("files").text
    assert sent("", b"").status_code == 400
    forged = at_annas.http.post("files", data={"csrf": "x"}, files={"file": ("a.jsonl", jsonl(CHAT))})
    assert forged.status_code == 403


@pytest.mark.parametrize("row", [CHOICE, COMPLETION, CHAT])
def test_rows_are_shown_as_tokens_with_what_is_learned(at_annas, anna, row):
    file = upload(anna, *[row] * 3)
    page = at_annas.get(f"files/{file}").text
    assert 'class="token learned acts"' in page
    assert "3 rows" in page
    answer = at_annas.get(f"files/{file}?acts=answer").text
    assert 'class="token">' in answer  # the base model's alone
    assert "switched on by" in answer


def test_only_the_beginning_of_a_file_is_tokenised(at_annas, anna):
    long = COMPLETION | {"prompt": "word " * 6000}
    page = at_annas.get(f"files/{upload(anna, long, long, long)}").text
    assert "3 rows" in page
    assert page.count("<li value=") == 2  # the third begins where 64 KiB have been read
    longest = upload(anna, COMPLETION | {"prompt": "word " * 20_000})
    assert "The first row alone is longer" in at_annas.get(f"files/{longest}").text


def test_what_tenants_write_is_text(at_annas, anna):
    file = upload(anna, *[COMPLETION | {"prompt": MARKUP}] * 3, name=f"{MARKUP}.jsonl")
    job = submit(anna, file, suffix="a")
    for path in (f"files/{file}", "files", f"jobs/{job.id}"):
        assert MARKUP not in at_annas.get(path).text


def test_use_and_key_are_shown(at_annas, anna):
    page = at_annas.get("account").text
    assert anna.id in page
    assert anna.secret not in page
    assert "scored tokens" in page
