"""The demo's tasks: balanced, without leaks, and the same bytes every time."""

import json
from collections import Counter

import pytest

from cli.demo import datasets
from cli.demo.datasets import write
from db.contract.rows.files import check, parse


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return write(tmp_path_factory.mktemp("demo"))


def _rows(path):
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_sizes_and_balance(files):
    sizes = {"sentiment_train": 1000, "sentiment_valid": 200, "topic_train": 500, "topic_valid": 150}
    assert {name: check([path.read_bytes()]).rows for name, path in files.items()} == sizes
    for path in files.values():
        rows = list(parse([path.read_bytes()]))
        labels, classes = [row.label for row in rows], len(rows[0].choices)
        assert Counter(labels) == {label: len(rows) // classes for label in range(classes)}
        assert labels[: 2 * classes] == list(range(classes)) * 2  # any first rows are balanced
        assert len({row.choices for row in rows}) == 1


@pytest.mark.parametrize("task", ["sentiment", "topic"])
def test_no_text_is_in_both_files(files, task):
    train, valid = (
        {datasets._key(r["prompt"].removeprefix("Review: ")) for r in _rows(files[f"{task}_{part}"])}
        for part in ("train", "valid")
    )
    assert not train & valid
    assert len(train) == len(_rows(files[f"{task}_train"]))
    # Nor with their first or last eight words alike: the news are rewritten, the reviews quoted in part.
    cuts = {" ".join(text.split()[:8]) for text in train}
    assert not cuts & {" ".join(text.split()[:8]) for text in valid if len(text.split()) > 10}


def test_the_texts_are_text(files):
    for name, path in files.items():
        end = "\nRating:" if name.startswith("sentiment") else "\nTopic:"
        for row in _rows(path):
            assert row["prompt"].endswith(end)
            assert 3 <= len(row["prompt"].split()) <= 70
            assert "�" not in row["prompt"]
            assert "<br" not in row["prompt"]


def test_every_call_writes_the_same_bytes(files, tmp_path):
    again = write(tmp_path / "new" / "folder")
    assert {n: p.read_bytes() for n, p in again.items()} == {n: p.read_bytes() for n, p in files.items()}
