"""The oracle: transformers and real PEFT LoRA layers, one trial at a time. Knows no engine and no slots."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker import objectives
from worker.forwards import Forward, Scoring, finished
from worker.oracle.dequantised import load_model
from worker.oracle.passes import Passes
from worker.oracle.pieces import parts
from worker.oracle.prompts import Kept
from worker.types import Example, Greedy, LogProbs, Loss, Params, Trial, blank, unseen

TOKENS = 1 << 30  # of a pass without derivatives: its sequences bound it
DIFFERENTIATED = 1024  # tokens, padding too, whose activations are kept for a derivative at a time


@dataclass
class Work:
    """What a trial's passes fill: log-probabilities, likeliest targets where asked, and sums of derivatives."""

    trial: Trial
    places: LogProbs
    best: Greedy | None
    gradient: Params | None = None
    slope: float | None = None


class TorchScorer:
    """Scores trials with plain padded forward passes, slow and simple: `EngineScorer` is tested against it. Where an
    adapter has an invocation, it is PEFT that looks for it and says where the adapter acts.

    It has autograd: a trial's gradient is backpropagated through PEFT's layers, and its slope along a tangent is one
    forward pass of forward-mode differentiation. A quantised base has neither.

    With `kept`, what lies before an example's `start` is computed once and continued by every probe: as fast as this
    can be, and no longer the judge, for it takes `start` at its word.

    `path` is a local model folder, `dtype` a torch dtype's name, `threads` bounds torch's own threads (None: as is),
    `batch` is how many sequences are padded together.
    """

    capacity = 1

    def __init__(
        self,
        path: str | Path,
        dtype: str = "float32",
        threads: int | None = None,
        batch: int = 16,
        kept: Kept | None = None,
    ) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        base: Any = load_model(path, dtype)
        self._passes = Passes(base.eval().requires_grad_(False), kept)
        self._quantised = quantised(path)
        self._batch = batch

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """One loss a trial, in order. Raises ValueError for a layout that names a module the model lacks, and for
        derivatives of a quantised base or of an objective that has none."""
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        """The same, a trial at a time."""
        forwards, works = self._forwards(trials)
        return Scoring(forwards, lambda: [_loss(work) for work in works])

    def logprobs(self, trials: Sequence[Trial]) -> list[LogProbs]:
        """Natural-log probability of every target, float32, in the shape of the trials' candidates."""
        forwards, works = self._forwards(trials)
        for forward in forwards:
            forward.act()
        return [work.places for work in works]

    def _forwards(self, trials: Sequence[Trial]) -> tuple[list[Forward], list[Work]]:
        """A forward for every trial, and what they will have filled."""
        if self._quantised and any(trial.differentiated for trial in trials):
            raise ValueError("a quantised base has no derivatives: train it by losses alone")
        works = [Work(*each) for each in zip(trials, blank(trials), unseen(trials), strict=True)]
        forwards = [
            Forward(frozenset((number,)), max(1, work.trial.tokens), partial(self._fill, work))
            for number, work in enumerate(works)
        ]
        return forwards, works

    def close(self) -> None:
        self._passes.close()

    def _fill(self, work: Work) -> None:
        trial = work.trial
        tokens = DIFFERENTIATED if trial.differentiated else TOKENS
        for part in parts(trial.examples, self._batch, tokens):
            examples = trial.examples[part.start : part.stop]

            def slopes(logs: NDArray[np.float32], examples: Sequence[Example] = examples) -> NDArray[np.float64]:
                return np.concatenate(objectives.slopes(trial, examples, _cut(examples, logs)))

            result = self._passes.run(trial, examples, slopes)
            for number, rows in zip(part, _cut(examples, result.logprobs), strict=True):
                work.places[number] = rows
            if work.best is not None:
                for number, hits in zip(part, _cut(examples, result.likeliest), strict=True):
                    work.best[number] = hits
            if result.gradient is not None:
                work.gradient = result.gradient if work.gradient is None else work.gradient + result.gradient
            if result.slope is not None:
                work.slope = result.slope + (work.slope or 0.0)


def quantised(path: str | Path) -> bool:
    """Whether the weights in this folder are stored quantised."""
    from transformers import AutoConfig

    return bool(getattr(AutoConfig.from_pretrained(str(path), local_files_only=True), "quantization_config", None))


def _cut(examples: Sequence[Example], flat: NDArray[Any]) -> list[list[NDArray[Any]]]:
    """What was found for every target, over examples and candidates."""
    out: list[list[NDArray[Any]]] = []
    at = 0
    for example in examples:
        out.append([])
        for candidate in example.candidates:
            out[-1].append(flat[at : at + len(candidate.targets)])
            at += len(candidate.targets)
    return out


def _loss(work: Work) -> Loss:
    """The trial's loss, with the derivatives of its mean."""
    loss = objectives.loss(work.trial, work.places, work.best)
    gradient = None if work.gradient is None else work.gradient / np.float32(loss.count)
    slope = None if work.slope is None else work.slope / loss.count
    return replace(loss, gradient=gradient, slope=slope)
