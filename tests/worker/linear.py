"""A base model small enough to write down, and its scorer: a linear classifier of tokens. Knows no engine."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE

from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import Base
from worker import objectives
from worker.forwards import Scoring, at_once
from worker.runs.data import Dataset
from worker.types import Candidate, Example, Loss, Trial

VOCAB, LABELS = 6, 3
BASE = Base(
    name="linear", source="", path=Path(), architecture="llama", context=64, vocab=VOCAB,
    modules=(("head.q_proj", VOCAB, LABELS), ("other", 4, 4)), prefix=(), eos=None, chat_template=None,
    special_tokens={}, special_ids=frozenset(), tokenizer=Tokenizer(BPE()),
)  # fmt: skip


class LinearScorer:
    """Log-probabilities of target t after a text: log-softmax of dW @ (share of each token in it). `calls` and `trials`
    are what was asked; from the `broken_from`-th call on every answer is nan."""

    capacity = 4

    def __init__(self, broken_from: int | None = None) -> None:
        self.calls = 0
        self.trials: list[Trial] = []
        self._broken_from = broken_from

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        self.calls += 1
        self.trials = list(trials)
        return [self._loss(trial) for trial in trials]

    def start(self, trials: Sequence[Trial]) -> Scoring:
        return at_once(self.score, trials)

    def close(self) -> None: ...

    def _loss(self, trial: Trial) -> Loss:
        logits = np.zeros((LABELS, VOCAB))
        if trial.layout is not None and trial.params is not None:
            _, a, b = next(trial.layout.pairs(trial.params))
            logits = trial.layout.scaling * (b.astype(np.float64) @ a)
        sound = np.nan if self._broken_from is not None and self.calls >= self._broken_from else 1.0
        scored = []
        for example in trial.examples:
            rows = []
            for candidate in example.candidates:
                share = np.bincount(example.sequences[candidate.sequence], minlength=VOCAB) / len(example.sequences[0])
                z = logits @ share
                rows.append((sound * (z - np.logaddexp.reduce(z)))[candidate.targets].astype(np.float32))
            scored.append(rows)
        return objectives.loss(trial, scored)


def dataset(seed: int, train: int = 60, valid: int = 30) -> Dataset:
    """Texts of 5 tokens whose label is the most frequent token modulo LABELS: separable by a linear layer, nearly."""
    rng = np.random.default_rng(seed)
    candidates = tuple(Candidate(0, np.array([4], np.int32), np.array([t], np.int32)) for t in range(LABELS))
    made = []
    for _ in range(train + valid):
        text = rng.integers(0, VOCAB, size=5).astype(np.int32)
        made.append(Example((text,), candidates, int(np.bincount(text).argmax()) % LABELS))
    return Dataset(tuple(made[:train]), tuple(made[train:]))


def spec(seed: int = 1, **changes: object) -> JobSpec:
    method = {"name": "mezo", "eps": 1e-2, "learning_rate": 0.1, **changes.pop("method", {})}  # type: ignore[dict-item]
    given = {
        "model": "linear", "objective": "choice", "adapter": AdapterSpec(rank=4, alpha=8.0, targets=("q_proj",)),
        "method": methods.settings(**method), "training_file": "file-1", "validation_file": "file-2",
        "steps": 40, "batch_size": 20, "eval_every": 10, "eval_rows": 20, "seed": seed, **changes,
    }  # fmt: skip
    return JobSpec.model_validate(given)
