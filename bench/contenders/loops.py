"""What torch loops are made of, and a batched transformers loop as a scorer. Knows torch, no engine."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F
from transformers import AutoModelForCausalLM

from worker import objectives
from worker.forwards import Scoring, at_once
from worker.types import Example, Layout, Loss, Trial

Rows = list[tuple[int, torch.Tensor, torch.Tensor]]  # (sequence row, positions [n], targets [n]), one a candidate


PLACE: ContextVar[tuple[str, torch.dtype]] = ContextVar("place", default=("cpu", torch.float32))


@contextmanager
def placed(device: str = "cpu", dtype: str = "float32") -> Iterator[None]:
    """Inside, `base_model` puts models on `device` in `dtype` (torch's name of it), and `seeded` draws on `device`."""
    before = PLACE.set((device, getattr(torch, dtype)))
    try:
        yield
    finally:
        PLACE.reset(before)


def base_model(path: str) -> Any:
    """The transformers model at `path` where and in the dtype that `placed` says, gradients off."""
    device, dtype = PLACE.get()
    return AutoModelForCausalLM.from_pretrained(path, dtype=dtype).to(device).eval().requires_grad_(False)


def padded(sequences: Sequence[Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Right-padded ids [rows, longest] and their mask."""
    longest = max(len(s) for s in sequences)
    ids = torch.zeros(len(sequences), longest, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for row, sequence in enumerate(sequences):
        ids[row, : len(sequence)] = torch.from_numpy(np.asarray(sequence, np.int64))
        mask[row, : len(sequence)] = 1
    return ids, mask


def linears(model: Any, layout: Layout) -> list[torch.nn.Linear]:
    return [model.get_submodule(m.name) for m in layout.modules]


class BatchedScorer:
    """All probes of all trials in one padded batch of transformers, the probes' A and B applied by bmm, logits at the
    wanted positions only: the strongest plain loop short of an engine. Trials must share a layout and examples' number.
    """

    def __init__(self, path: str, layout: Layout) -> None:
        self._model = base_model(path)
        self._layout = layout
        self._probes = torch.zeros(1, layout.size)
        for index, linear in enumerate(linears(self._model, layout)):
            linear.forward = self._adapted(linear, index)  # type: ignore[method-assign]

    @property
    def capacity(self) -> int:
        return 64

    def close(self) -> None:
        self._model = None

    def start(self, trials: Sequence[Trial]) -> Scoring:
        return at_once(self.score, trials)

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        probes = [t.params if t.params is not None else np.zeros(self._layout.size, np.float32) for t in trials]
        rows = max(sum(len(e.sequences) for e in t.examples) for t in trials)
        filler = np.zeros(1, np.int32)
        sequences: list[Any] = []
        for trial in trials:
            own = [s for e in trial.examples for s in e.sequences]
            sequences += own + [filler] * (rows - len(own))
        self._probes = torch.from_numpy(np.stack(probes))
        with torch.inference_mode():
            ids, mask = padded(sequences)
            hidden = self._model.base_model(input_ids=ids, attention_mask=mask, use_cache=False).last_hidden_state
            return [self._loss(trial, hidden[i * rows : (i + 1) * rows]) for i, trial in enumerate(trials)]

    def _loss(self, trial: Trial, hidden: torch.Tensor) -> Loss:
        wanted = candidate_rows(trial.examples)
        flat = torch.cat([hidden[row, positions] for row, positions, _ in wanted])
        logprobs = self._model.lm_head(flat).float().log_softmax(-1)
        chosen = logprobs.gather(1, torch.cat([t for _, _, t in wanted])[:, None])[:, 0].numpy()
        pieces = iter(np.split(chosen, np.cumsum([len(t) for _, _, t in wanted])[:-1]))
        return objectives.loss(trial, [[next(pieces) for _ in e.candidates] for e in trial.examples])

    def _adapted(self, linear: torch.nn.Linear, index: int) -> Any:
        layout, weight, bias = self._layout, linear.weight, linear.bias
        a0, b0, end = layout.offsets[2 * index : 2 * index + 3]

        def forward(x: torch.Tensor) -> torch.Tensor:
            n = len(self._probes)
            a = self._probes[:, a0:b0].view(n, *layout.shapes[2 * index])
            b = self._probes[:, b0:end].view(n, *layout.shapes[2 * index + 1])
            low = torch.bmm(x.reshape(n, -1, x.shape[-1]), a.transpose(1, 2))
            return F.linear(x, weight, bias) + layout.scaling * torch.bmm(low, b.transpose(1, 2)).reshape(
                *x.shape[:-1], -1
            )

        return forward


def candidate_rows(examples: Sequence[Example]) -> Rows:
    """Where each candidate of each example is read, sequences numbered through all examples."""
    out: Rows = []
    first = 0
    for example in examples:
        for c in example.candidates:
            positions = torch.from_numpy(c.positions.astype(np.int64))
            out.append((first + c.sequence, positions, torch.from_numpy(c.targets.astype(np.int64))))
        first += len(example.sequences)
    return out
