"""(b), the strongest fair loop: all probes of a step in one ragged batch of plain PyTorch, the adapter beside the base.

Nothing is padded that need not be, both signs share the batch, the base's weights are prepacked, logits are made at the
wanted rows only, what lies between GEMMs is compiled. Knows torch, no engine. Sources: arXiv 2305.17333 and 2410.07698.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from bench.contenders import ragged
from bench.contenders.bodies import Adapt, Attend, Body, body, pieces
from bench.contenders.draws import Stream, seeded
from bench.contenders.loops import base_model
from bench.contenders.ragged import Batch
from worker.types import Example, Layout

LOGITS = 1 << 24  # logits held at once: 64 MiB


@dataclass(frozen=True)
class Loaded:
    """A base model as the strongest loop keeps it. `outputs` are the widths of its linears by (layer, last part of the
    name), `compiled` whether what lies between GEMMs is."""

    body: Body
    outputs: dict[tuple[int, str], int]
    device: torch.device
    dtype: torch.dtype
    compiled: bool


def load(path: str, compiled: bool | None = None) -> Loaded:
    """The model at `path`, its pieces compiled where that can be done here, or as asked."""
    model, own = base_model(path), pieces(compiled)
    outputs = {_place(n): m.out_features for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return Loaded(body(model, own), outputs, model.device, model.dtype, own.compiled)


class Scoring:
    """Scores probes of adapters of one layout: the part of the loop that costs."""

    def __init__(self, base: Loaded, layout: Layout, full: float = ragged.FULL) -> None:
        self.device, self.dtype, self.layout, self._full = base.device, base.dtype, layout, full
        self._body, self._outputs = base.body, base.outputs
        self._where = {_place(m.name): i for i, m in enumerate(layout.modules)}

    def losses(self, probes: torch.Tensor, examples: Sequence[Example], objective: str) -> list[float]:
        """The mean loss of each probe, float32 [probes, P], on the same examples."""
        with torch.inference_mode():
            laid, attend = self._lay(examples, len(probes))
            chosen = self._chosen(probes.to(self.device, self.dtype), laid, attend).cpu().numpy().astype(np.float64)
        return [mean_loss(row, laid, examples, objective) for row in chosen]

    def _lay(self, examples: Sequence[Example], probes: int) -> tuple[Batch, Attend]:
        laid = ragged.batch(examples, probes, self.device, self._full)
        return laid, lambda _, q, k, v: ragged.attend(laid.groups, laid.back, q, k, v)

    def _chosen(self, probes: torch.Tensor, laid: Batch, attend: Attend) -> torch.Tensor:
        """Log-probabilities [probes, targets] of what is wanted."""
        hidden = self._body.run(laid.ids, laid.positions, laid.rows, self._adapt(probes, laid), attend)
        each = len(hidden) // laid.probes
        which = torch.cat([laid.which + p * each for p in range(laid.probes)])
        targets, out = laid.targets.repeat(laid.probes), torch.empty(len(which), device=self.device)
        chunk = max(1, LOGITS // self._body.vocab)
        for low in range(0, len(hidden), chunk):
            logits = self._body.head(hidden[low : low + chunk]).float()
            mine = (which >= low) & (which < low + chunk)
            at = which[mine] - low
            out[mine] = logits[at, targets[mine]] - torch.logsumexp(logits, -1)[at]
        return out.view(laid.probes, -1)

    def _adapt(self, probes: torch.Tensor, laid: Batch) -> Adapt:
        layout, where, scaling = self.layout, self._where, self.layout.scaling
        n, wanted = len(laid.ids) // laid.probes, len(laid.rows) // laid.probes

        def tensors(number: int, probe: int) -> tuple[torch.Tensor, torch.Tensor]:
            a, b, end = layout.offsets[2 * number : 2 * number + 3]
            row = probes[probe]
            return row[a:b].view(layout.shapes[2 * number]), row[b:end].view(layout.shapes[2 * number + 1])

        def adapt(layer: int, names: tuple[str, ...], x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
            mine = [(i, where[layer, name]) for i, name in enumerate(names) if (layer, name) in where]
            if not mine:
                return y
            ends = np.cumsum([self._outputs[layer, name] for name in names])
            # Behind the last attention only wanted rows are left, all of which the adapter acts on.
            acting = laid.acting if len(x) == n * laid.probes else None
            each = n if len(x) == n * laid.probes else wanted
            for probe in range(laid.probes):
                some = slice(probe * each, (probe + 1) * each)
                given = x[some] if acting is None else x[some][acting]
                pairs = [(i, *tensors(number, probe)) for i, number in mine]
                low = given @ torch.cat([a for _, a, _ in pairs]).T
                for k, (i, _, b) in enumerate(pairs):
                    part = y[some, ends[i] - len(b) : ends[i]]
                    own = low[:, k * layout.rank : (k + 1) * layout.rank]
                    if acting is None:
                        part.addmm_(own, b.T, alpha=scaling)
                    else:
                        part.index_add_(0, acting, own @ b.T, alpha=scaling)
            return y

        return adapt


def _place(name: str) -> tuple[int, str]:
    """(layer, last part) of a module's transformers name; (-1, ...) outside the layers."""
    _, found, rest = name.partition(".layers.")
    return (int(rest.split(".")[0]) if found else -1), name.rpartition(".")[2]


def mean_loss(chosen: np.ndarray[Any, Any], laid: Batch, examples: Sequence[Example], objective: str) -> float:
    """Mean loss of one probe from its log-probabilities [targets], float64: NLL a target for lm, the cross-entropy of
    the candidates' mean log-probabilities an example for choice."""
    if objective == "lm":
        return float(-chosen.mean())
    scores = np.add.reduceat(chosen, np.r_[0, laid.cuts[:-1]]) / np.diff(np.r_[0, laid.cuts])
    losses, at = [], 0
    for example in examples:
        own = scores[at : at + len(example.candidates)]
        at += len(own)
        losses.append(own.max() + np.log(np.exp(own - own.max()).sum()) - own[example.label])
    return float(np.mean(losses))


class MezoStrong:
    """MeZO on A and B: both signs scored together, one draw and one update of a flat vector a step."""

    def __init__(
        self, scoring: Scoring, start: np.ndarray[Any, Any], eps: float, rate: float, noise: Stream = seeded
    ) -> None:
        self.scoring, self._eps, self._rate, self._noise = scoring, eps, rate, noise
        self.params = torch.from_numpy(start.copy()).to(scoring.device)

    def step(self, examples: Sequence[Example], step: int, objective: str) -> list[float]:
        """One step; the two losses."""
        z = self._noise(step)((len(self.params),)).to(self.params.device)
        probes = torch.stack((self.params.add(z, alpha=self._eps), self.params.sub(z, alpha=self._eps)))
        up, down = self.scoring.losses(probes, examples, objective)
        self.params.sub_(z, alpha=self._rate * (up - down) / (2 * self._eps))
        return [up, down]


class LozoStrong:
    """LOZO with U V^T never materialised: V^T is r rows of A, U added to r columns of B; each V takes the next rows."""

    def __init__(
        self, scoring: Scoring, eps: float, rate: float, rank: int, nu: int,
        left: Stream = seeded, right: Stream = seeded,
    ) -> None:  # fmt: skip
        self.scoring, self._eps, self._rate, self._rank, self._nu = scoring, eps, rate, rank, nu
        self._left, self._right = left, right
        self.params = torch.zeros(scoring.layout.size, device=scoring.device)
        self._windows = 0

    def step(self, examples: Sequence[Example], step: int, objective: str) -> list[float]:
        """One step; the two losses."""
        if step // self._nu + 1 > self._windows:
            self._windows += 1
            if self._windows <= self._slots:
                draw = self._right(self._windows - 1)
                for a, _ in self._pairs(self.params):
                    a[self._window] = draw((self._rank, a.shape[1])).to(a.device)
        z = torch.zeros_like(self.params)
        draw = self._left(step)
        for _, b in self._pairs(z):
            b[:, self._window] = draw((b.shape[0], self._rank)).to(b.device) / self.scoring.layout.scaling
        probes = torch.stack((self.params.add(z, alpha=self._eps), self.params.sub(z, alpha=self._eps)))
        up, down = self.scoring.losses(probes, examples, objective)
        self.params.sub_(z, alpha=self._rate * (up - down) / (2 * self._eps))
        return [up, down]

    @property
    def _slots(self) -> int:
        return self.scoring.layout.rank // self._rank

    @property
    def _window(self) -> slice:
        begin = (self._windows - 1) % self._slots * self._rank
        return slice(begin, begin + self._rank)

    def _pairs(self, flat: torch.Tensor) -> list[tuple[torch.Tensor, torch.Tensor]]:
        layout = self.scoring.layout
        views = [
            flat[a:b].view(shape)
            for a, b, shape in zip(layout.offsets, layout.offsets[1:], layout.shapes, strict=False)
        ]
        return list(zip(views[::2], views[1::2], strict=True))
