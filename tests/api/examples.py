"""Rows of the three formats, uploads of them, and requests that wait for their answer."""

import json
from typing import Any

import httpx

from tests.api.conftest import Client
from tests.waiting import HANG

CHOICE = {"prompt": "the film was a great story. It was", "choices": [" terrible", " great"], "label": 1}
COMPLETION = {"prompt": "What is the capital of France?", "completion": " Paris"}
CHAT = {"messages": [{"role": "user", "content": "yes or no?"}, {"role": "assistant", "content": "yes"}]}
# Each on a connection of its own.
http = httpx.Client(timeout=HANG, limits=httpx.Limits(max_keepalive_connections=0))


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
