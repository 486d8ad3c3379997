"""The study's rows: the demo's to train on, and two sets of their kind that nobody has looked at. Knows no model.

The demo's split takes its rows in a fixed order, labels in turn, so whoever asks for more held-out rows gets the demo's
own first and then new ones: of these the first are for choosing settings, the others for reporting.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from bench.study.lines import Task, Template
from cli.demo import chat
from cli.demo.datasets import sentiment, topic

DEV, REPORT = 100, 150  # rows
FEWER = (40, 60)  # of them, where an evaluation pays for every token of every row: activation `all`
# Training and held-out rows of the demo's files: see `cli.demo.datasets.write`.
DEMO: Final[dict[Task, tuple[int, int]]] = {"sentiment": (1000, 200), "topic": (500, 150)}
MADE: Final[dict[Task, Callable[[int, int], tuple[list[dict[str, Any]], list[dict[str, Any]]]]]] = {
    "sentiment": sentiment,
    "topic": topic,
}


@dataclass(frozen=True)
class Rows:
    """A task's JSONL: `train` as the demo's; `dev` and `report` disjoint from it, from what the demo is measured on and
    from each other. Labels are balanced in all three."""

    train: bytes
    dev: bytes
    report: bytes


def rows(task: Task, template: Template = "demo") -> Rows:
    """The rows of a task, the same bytes at every call, told as the demo tells them or by another template. Of chat all
    three are the ten conversations: what is asked of its adapter is that it answers as they do."""
    if task == "chat":
        known = _jsonl(chat.rows())
        return Rows(known, known, known)
    source = SOURCE.get(task, task)
    train, seen = DEMO[source]
    trained, held = MADE[source](train, seen + DEV + REPORT)
    fresh = held[seen:]
    told = TOLD[template] if task == source else COMPLETIONS[task]
    return Rows(*(_jsonl([told(row) for row in part]) for part in (trained, fresh[:DEV], fresh[DEV:])))


def _plain(row: dict[str, Any]) -> dict[str, Any]:
    """The text and a line's end: no word says what is asked. The choices are the same."""
    return {**row, "prompt": f"{_text(row)}\n"}


def _written(row: dict[str, Any]) -> dict[str, Any]:
    """The right choice as text to be said."""
    return {"prompt": row["prompt"], "completion": row["choices"][row["label"]]}


def _review(row: dict[str, Any]) -> dict[str, Any]:
    """The review itself, whatever its rating."""
    return {"prompt": "A film review in one sentence:", "completion": f" {_text(row)}"}


def _text(row: dict[str, Any]) -> str:
    """What the demo's prompt is about."""
    prompt: str = row["prompt"]
    return prompt.removeprefix("Review: ").removesuffix("\nRating:").removesuffix("\nTopic:")


TOLD: Final[dict[Template, Callable[[dict[str, Any]], dict[str, Any]]]] = {"demo": dict, "plain": _plain}


COMPLETIONS: Final[dict[Task, Callable[[dict[str, Any]], dict[str, Any]]]] = {"written": _written, "reviews": _review}
SOURCE: Final[dict[Task, Task]] = {"written": "topic", "reviews": "sentiment"}


def _jsonl(found: list[dict[str, Any]]) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode()
