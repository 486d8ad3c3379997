"""Rows of the three formats, and uploads of them."""

import json
from typing import Any

from tests.api.conftest import Client

CHOICE = {"prompt": "the film was a great story. It was", "choices": [" terrible", " great"], "label": 1}
COMPLETION = {"prompt": "What is the capital of France?", "completion": " Paris"}
CHAT = {"messages": [{"role": "user", "content": "yes or no?"}, {"role": "assistant", "content": "yes"}]}


def jsonl(*rows: Any) -> bytes:
    return b"".join(json.dumps(row).encode() + b"\n" for row in rows)


def upload(who: Client, *rows: Any, name: str = "train.jsonl") -> str:
    return who.openai.files.create(file=(name, jsonl(*rows)), purpose="fine-tune").id


def submit(who: Client, training_file: str, onward: dict[str, Any] | None = None, **fields: Any) -> Any:
    """A job of few steps unless told otherwise."""
    extra = {"onward": {"steps": 4, "batch_size": 2, "rank": 2, **(onward or {})}}
    return who.openai.fine_tuning.jobs.create(
        model=fields.pop("model", "tiny"), training_file=training_file, extra_body=extra, **fields
    )


def choices(count: int) -> list[dict[str, Any]]:
    """Rows of different lengths."""
    return [CHOICE | {"prompt": "the film was a great story. " * (i % 3 + 1) + "It was"} for i in range(count)]
