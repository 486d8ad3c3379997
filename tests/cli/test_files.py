"""`onward files` and `onward models` against a real API."""

import json

import pytest

from tests.api.examples import CHOICE, jsonl
from tests.cli.conftest import complaint, read


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(jsonl(CHOICE, CHOICE))
    return path


def test_a_file_goes_up_and_comes_back_and_goes(onward, rows, tmp_path):
    file = read(onward("files", "upload", str(rows), "--json"))
    assert file["filename"] == "rows.jsonl"
    assert file["id"] in onward("files", "list").stdout
    assert read(onward("files", "show", file["id"], "--json"))["bytes"] == rows.stat().st_size
    back = tmp_path / "deep" / "back.jsonl"
    onward("files", "content", file["id"], "-o", str(back))
    assert back.read_bytes() == rows.read_bytes()
    assert onward("files", "content", file["id"]).stdout_bytes == rows.read_bytes()
    assert read(onward("files", "delete", file["id"], "--json"))["deleted"]
    assert file["id"] not in [f["id"] for f in read(onward("files", "list", "--json"))]
    assert file["id"] in complaint(onward("files", "show", file["id"], ok=False))


def test_a_bad_row_is_told_with_its_line(onward, rows):
    rows.write_bytes(jsonl(CHOICE, CHOICE | {"label": 7}))
    assert "Line 2" in complaint(onward("files", "upload", str(rows), ok=False))


SHAREGPT = [
    {"conversations": [{"from": "human", "value": "yes or no?"}, {"from": "gpt", "value": answer}]}
    for answer in ("yes", "")
]


def test_a_foreign_file_is_named_converted_and_sent(onward, tmp_path):
    path, made = tmp_path / "talks.json", tmp_path / "deep" / "rows.jsonl"
    path.write_text(json.dumps(SHAREGPT, indent=1))
    assert "onward files convert" in complaint(onward("files", "upload", str(path), ok=False))
    done = onward("files", "convert", str(path), str(made))
    assert f"1 rows in {made}" in done.stdout
    assert "1 of 2 rows have no answer to learn and are left out" in done.stderr
    assert json.loads(made.read_text())["messages"][1] == {"role": "assistant", "content": "yes"}
    sent = read(onward("files", "upload", str(path), "--from", "sharegpt", "--json"))
    assert (sent["filename"], sent["onward"]["format"], sent["onward"]["rows"]) == ("talks.jsonl", "chat", 1)
    assert onward("files", "content", sent["id"]).stdout_bytes == made.read_bytes()


def test_what_cannot_be_converted_is_told_and_nothing_is_left(onward, tmp_path):
    path, made = tmp_path / "talks.json", tmp_path / "rows.jsonl"
    path.write_text(json.dumps(SHAREGPT[0]) + "\n" + json.dumps({"conversations": [{"from": "ghost", "value": ""}]}))
    said = complaint(onward("files", "convert", str(path), str(made), ok=False))
    assert "object 2 of" in said
    assert "ghost" in said
    assert [p.name for p in tmp_path.iterdir()] == ["talks.json"]


def test_a_missing_file_is_told_before_anything_is_sent(onward):
    assert "there is no file nowhere.jsonl" in complaint(onward("files", "upload", "nowhere.jsonl", ok=False))


def test_a_list_is_as_long_as_asked_for(onward, rows):
    for _ in range(3):
        onward("files", "upload", str(rows))
    assert len(read(onward("files", "list", "--limit", "2", "--json"))) == 2


def test_models_name_the_base(onward):
    assert "tiny" in [m["id"] for m in read(onward("models", "--json"))]
    assert "tiny" in onward("models").stdout


def test_a_wrong_key_is_told_with_what_to_do(onward, monkeypatch):
    monkeypatch.setenv("ONWARD_API_KEY", "sk-onward-wrong")
    said = complaint(onward("files", "list", ok=False))
    assert "the key was refused" in said
    assert "onward keys create" in said


def test_no_service_is_told_with_what_to_do(shell):
    assert "onward up" in complaint(shell("files", "list", ok=False))


def test_an_unreachable_service_is_told_with_its_address(onward, monkeypatch):
    monkeypatch.setenv("ONWARD_BASE_URL", "http://127.0.0.1:9/v1")
    monkeypatch.setattr("openai._base_client.INITIAL_RETRY_DELAY", 0.01)
    assert "127.0.0.1:9" in complaint(onward("files", "list", ok=False))
