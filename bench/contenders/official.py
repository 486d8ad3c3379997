"""(a), the official style, written from the formulas: parameters perturbed in place from a seed, three passes over them
(+eps, -2 eps, +eps), two padded forwards with logits everywhere, an update pass. Knows torch, no engine.

MeZO (arXiv 2305.17333, algorithm 1) on LoRA's A and B; LOZO (arXiv 2410.07698) on the target weights themselves, U V^T
materialised for each in every pass. As in both codes every candidate of a choice is a sequence of its own.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from bench.contenders.draws import Stream, seeded
from bench.contenders.loops import base_model, linears, padded
from worker.types import Example, Layout, Params


class Official(ABC):
    """Three perturbations, two forwards, one update; `_perturb(step, scale)` is the method's. `batch` sequences share a
    forward at most (the codes have no such limit; without one a large batch's logits fill this machine's memory)."""

    def __init__(self, path: str, layout: Layout, eps: float, rate: float, batch: int = 32) -> None:
        self.model: Any = base_model(path)
        self.layout, self._eps, self._rate, self._batch = layout, eps, rate, batch

    def step(self, examples: Sequence[Example], step: int, objective: str) -> list[float]:
        """One step; the two losses."""
        self._perturb(step, self._eps)
        up = self.loss(examples, objective)
        self._perturb(step, -2 * self._eps)
        down = self.loss(examples, objective)
        self._perturb(step, self._eps)
        self._perturb(step, -self._rate * (up - down) / (2 * self._eps))
        return [up, down]

    def loss(self, examples: Sequence[Example], objective: str) -> float:
        """The mean loss under the parameters as they are."""
        texts = [
            (e.sequences[c.sequence][: int(c.positions[-1]) + 1], c, e.start) for e in examples for c in e.candidates
        ]
        terms: list[torch.Tensor] = []
        with torch.inference_mode():
            for first in range(0, len(texts), self._batch):
                part = texts[first : first + self._batch]
                ids, mask = (x.to(self.model.device) for x in padded([t[0] for t in part]))
                self._acting(mask, [t[2] for t in part])
                logits = self.model(input_ids=ids, attention_mask=mask, use_cache=False).logits
                logprobs = logits.float().log_softmax(-1)
                lengths = [len(c.targets) for _, c, _ in part]
                rows = torch.arange(len(part)).repeat_interleave(torch.tensor(lengths))
                positions = torch.from_numpy(np.concatenate([c.positions for _, c, _ in part]))
                targets = torch.from_numpy(np.concatenate([c.targets for _, c, _ in part]))
                wanted = tuple(x.to(logprobs.device) for x in (rows, positions, targets))
                terms += logprobs[wanted].cpu().split(lengths)
            if objective == "lm":
                return float(-torch.cat(terms).double().mean())
            scores = iter([t.mean().double() for t in terms])
            losses = [
                F.cross_entropy(torch.stack([next(scores) for _ in e.candidates])[None], torch.tensor([e.label]))
                for e in examples
            ]
            return float(torch.stack(losses).mean())

    def _acting(self, mask: torch.Tensor, starts: Sequence[int]) -> None:
        """Told before each forward which tokens [rows, longest] the adapter acts on. Most loops need not know."""
        del mask, starts

    @abstractmethod
    def _perturb(self, step: int, scale: float) -> None: ...


class MezoLoop(Official):
    """On LoRA's parameters, tensor by tensor."""

    def __init__(
        self, path: str, layout: Layout, start: Params, eps: float, rate: float, noise: Stream = seeded
    ) -> None:
        super().__init__(path, layout, eps, rate)
        self._noise = noise
        own = [torch.from_numpy(layout.tensor(start, i).copy()) for i in range(len(layout.shapes))]
        self.tensors = [x.to(self.model.device, self.model.dtype) for x in own]
        self._mask: torch.Tensor | None = None
        for index, linear in enumerate(linears(self.model, layout)):
            linear.forward = self._adapted(linear, index)  # type: ignore[method-assign]

    def _perturb(self, step: int, scale: float) -> None:
        draw = self._noise(step)
        for tensor in self.tensors:
            tensor.add_(draw(tuple(tensor.shape)).to(tensor), alpha=scale)

    def _acting(self, mask: torch.Tensor, starts: Sequence[int]) -> None:
        self._mask = None
        if any(starts):
            acting = torch.arange(mask.shape[1]) >= torch.tensor(starts)[:, None]
            self._mask = acting[..., None].to(mask.device, self.model.dtype)

    def _adapted(self, linear: torch.nn.Linear, index: int) -> Any:
        weight, bias, scaling = linear.weight, linear.bias, self.layout.scaling

        def forward(x: torch.Tensor) -> torch.Tensor:
            a, b = self.tensors[2 * index], self.tensors[2 * index + 1]
            delta = scaling * F.linear(F.linear(x, a), b)
            return F.linear(x, weight, bias) + (delta if self._mask is None else delta * self._mask)

        return forward


class LozoLoop(Official):
    """On the weights of the adapter's modules: W += scale U V^T, U [out, r] anew each step, V [in, r] each `nu` steps.
    V is drawn once a window: the official code draws U after V at such steps and without it in the update, so that what
    it updates with is not what it measured."""

    def __init__(
        self, path: str, layout: Layout, eps: float, rate: float, rank: int, nu: int,
        left: Stream = seeded, right: Stream = seeded,
    ) -> None:  # fmt: skip
        super().__init__(path, layout, eps, rate)
        self._rank, self._nu, self._left, self._right = rank, nu, left, right
        self.weights = [x.weight.data for x in linears(self.model, layout)]
        self._v: list[torch.Tensor] = []

    def step(self, examples: Sequence[Example], step: int, objective: str) -> list[float]:
        if step % self._nu == 0 or not self._v:
            draw = self._right(step // self._nu)
            self._v = [draw((self._rank, w.shape[1])).to(w) for w in self.weights]
        return super().step(examples, step, objective)

    def _perturb(self, step: int, scale: float) -> None:
        draw = self._left(step)
        for weight, v in zip(self.weights, self._v, strict=True):
            weight.add_(draw((weight.shape[0], self._rank)).to(weight) @ v, alpha=scale)
