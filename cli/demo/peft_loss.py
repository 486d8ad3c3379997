"""An adapter judged from outside: PEFT and transformers, their tokenizer, none of our code. Knows choice rows only."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

BATCH = 16  # sequences forwarded together
CHUNK = 64  # rows sorted by length, so that little is padded


@dataclass(frozen=True)
class Held:
    """Held-out loss (nats a row) and accuracy over `rows` rows."""

    loss: float
    accuracy: float
    rows: int


def held_out(model_folder: str, adapter: Path, data: Path, rows: int) -> Held:
    """Loss and accuracy of a PEFT directory on the first `rows` choice rows of a JSONL file, in float32.

    The loss of a row is the cross-entropy over the mean log-probabilities of its choices, each after the prompt.
    """
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import torch
    from peft import PeftModel
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from transformers.utils.logging import disable_progress_bar

    disable_progress_bar()
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    base = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    model = PeftModel.from_pretrained(base, str(adapter)).eval()
    total, hits, seen = 0.0, 0, 0
    with torch.inference_mode():
        for chunk in _chunks(data, rows):
            scores = iter(_scores(model, tokenizer, chunk))
            for row in chunk:
                means = torch.stack([next(scores) for _ in row["choices"]]).double()
                total += float(torch.logsumexp(means, 0) - means[row["label"]])
                hits += int(means.argmax()) == row["label"]
                seen += 1
    return Held(total / seen, hits / seen, seen)


def _chunks(data: Path, rows: int) -> Iterator[list[dict[str, Any]]]:
    with data.open(encoding="utf-8") as lines:
        read = (json.loads(line) for line in islice(lines, rows))
        while chunk := list(islice(read, CHUNK)):
            yield chunk


def _scores(model: Any, tokenizer: Any, chunk: list[dict[str, Any]]) -> Iterator[Any]:
    """The mean log-probability of every choice of every row, in order."""
    import torch

    wanted: list[tuple[list[int], int]] = []  # ids of prompt and choice, tokens of the prompt
    for row in chunk:
        prompt = tokenizer(row["prompt"])["input_ids"]
        wanted += [(tokenizer(row["prompt"] + choice)["input_ids"], len(prompt)) for choice in row["choices"]]
    shared: dict[tuple[int, ...], int] = {}  # one-token choices share a forward pass; from which row on it is scored
    for ids, prompt in wanted:
        key = tuple(ids[:-1])
        shared[key] = min(prompt - 1, shared.get(key, prompt))
    inputs = sorted(shared, key=len)
    known: dict[tuple[int, ...], Any] = {}
    for start in range(0, len(inputs), BATCH):
        batch = inputs[start : start + BATCH]
        width = max(map(len, batch))
        padded = torch.tensor([[*one, *[0] * (width - len(one))] for one in batch])
        mask = torch.tensor([[1] * len(one) + [0] * (width - len(one)) for one in batch])
        logits = model(input_ids=padded, attention_mask=mask).logits
        known |= {one: logits[i, shared[one] : len(one)].log_softmax(-1) for i, one in enumerate(batch)}
    for ids, prompt in wanted:
        key = tuple(ids[:-1])
        picked = known[key][prompt - 1 - shared[key] :]
        yield picked.gather(1, torch.tensor(ids[prompt:]).unsqueeze(1)).mean()
