"""(b+cache), the strongest loop on adapters of activation `answer`: prompts' keys and values are the base's, kept.

A step forwards what follows the prompts only, both signs in one batch; each prompt's keys are read once for all probes.
Knows torch, no engine. Where the prompts' keys do not fit memory this loop cannot run; the engine's has a budget.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from bench.contenders import ragged
from bench.contenders.bodies import Attend
from bench.contenders.ragged import Batch
from bench.contenders.strong import Loaded, Scoring
from worker.types import Candidate, Example, Layout

FULL = 0.75  # prompts that are laid side by side fill the longest's place at least so far


@dataclass(frozen=True)
class _Beside:
    """Sequences whose prompts lie side by side: their tokens `at` [probes, sequences, longest tail], the prompts' keys
    and values [layers, 2, sequences, key heads, longest, width] and what of them is there [sequences, 1, longest]."""

    at: torch.Tensor
    prompts: torch.Tensor
    there: torch.Tensor | None


class CachedScoring(Scoring):
    """Scores tails. `prompts` are computed when first met; `warm` does so ahead."""

    def __init__(self, base: Loaded, layout: Layout, full: float = ragged.FULL) -> None:
        super().__init__(base, layout, full)
        self.prompts: dict[bytes, torch.Tensor] = {}

    def warm(self, examples: Sequence[Example], at_once: int = 2048) -> int:
        """Compute the prompts that are not known yet, some `at_once` tokens a forward; how many tokens that were."""
        new = {e.prompt_key: e for e in examples if e.prompt_key not in self.prompts}
        todo, done = list(new.values()), 0
        while todo:
            part = [todo.pop()]
            while todo and sum(e.start for e in part) + todo[-1].start <= at_once:
                part.append(todo.pop())
            with torch.inference_mode():
                self._compute(part)
            done += sum(e.start for e in part)
        return done

    def _compute(self, examples: Sequence[Example]) -> None:
        nothing = np.zeros(1, np.int32)
        whole = [Example((e.prompt,), (Candidate(0, nothing + e.start - 1, nothing),)) for e in examples]
        laid = ragged.batch(whole, 1, self.device, self._full)
        layers = self._body.layers
        kept: list[torch.Tensor] = []

        def attend(_: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            kept.append(torch.stack((k, v)))
            return ragged.attend(laid.groups, laid.back, q, k, v)

        self._body.run(laid.ids, laid.positions, laid.rows, lambda _, _n, _x, y: y, attend)
        assert len(kept) == layers
        whole_cache = torch.stack(kept)  # [layers, 2, tokens, key heads, width]
        for e, begin, length in laid.placed:
            own = whole_cache[:, :, begin : begin + length].transpose(2, 3).contiguous()
            self.prompts[examples[e].prompt_key] = own

    def _lay(self, examples: Sequence[Example], probes: int) -> tuple[Batch, Attend]:
        self.warm(examples)
        laid = ragged.batch(examples, probes, self.device, self._full, tails=True)
        beside, back = self._side_by_side(examples, laid)

        def attend(layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
            return torch.cat([_attend(b, layer, q, k, v) for b in beside])[back]

        return laid, attend

    def _side_by_side(self, examples: Sequence[Example], laid: Batch) -> tuple[list[_Beside], torch.Tensor]:
        """Prompts by length, and where each token [probes * n] is in the outputs laid end to end."""
        back = np.empty(len(laid.ids), np.int64)
        base = 0
        placed = sorted(laid.placed, key=lambda p: -examples[p[0]].start)
        n, out = len(laid.ids) // laid.probes, []
        while placed:
            longest = examples[placed[0][0]].start
            many = max(1, sum(examples[p[0]].start >= FULL * longest for p in placed))
            part, placed = placed[:many], placed[many:]
            begins, lengths = (np.array([p[i] for p in part]) for i in (1, 2))
            inside = np.minimum(np.arange(lengths.max()), lengths[:, None] - 1)
            at = (begins[:, None] + inside)[None] + n * np.arange(laid.probes)[:, None, None]
            real = np.broadcast_to(np.arange(lengths.max()) < lengths[:, None], at.shape)
            back[at[real]] = base + np.flatnonzero(real)
            base += at.size
            caches = [self.prompts[examples[p[0]].prompt_key] for p in part]
            out.append(_Beside(torch.from_numpy(at).to(self.device), *_together(caches)))
        return out, torch.from_numpy(back).to(self.device)


def _together(caches: Sequence[torch.Tensor]) -> tuple[torch.Tensor, torch.Tensor | None]:
    """Prompts side by side, and which places are there; a single one as it lies."""
    if len(caches) == 1:
        return caches[0][:, :, None], None
    lengths = torch.tensor([c.shape[3] for c in caches])
    layers, two, heads, _, width = caches[0].shape
    out = caches[0].new_empty(layers, two, len(caches), heads, int(lengths.max()), width)
    for i, cache in enumerate(caches):
        out[:, :, i, :, : cache.shape[3]] = cache
        out[:, :, i, :, cache.shape[3] :] = 0
    there = torch.arange(int(lengths.max())) < lengths[:, None]
    return out, None if bool(there.all()) else there[:, None].to(out.device)


def _attend(b: _Beside, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> torch.Tensor:
    """[probes * sequences * longest tail, heads * width]: one softmax over a prompt and the tail so far."""
    probes, count, tail = b.at.shape
    keys, values = b.prompts[layer]
    heads, (key_heads, width) = q.shape[1], k.shape[1:]
    mine = (q[b.at] * width**-0.5).view(probes, count, tail, key_heads, heads // key_heads, width)
    mine = mine.permute(1, 3, 0, 4, 2, 5)  # [sequences, key heads, probes, group, tail, width]
    own_k, own_v = (x[b.at].permute(1, 3, 0, 2, 4).reshape(-1, tail, width) for x in (k, v))
    far = mine.reshape(count, key_heads, -1, width) @ keys.transpose(-1, -2)
    if b.there is not None:
        far = far.masked_fill(~b.there[:, None], float("-inf"))
    near = mine.reshape(count * key_heads * probes, -1, width) @ own_k.transpose(-1, -2)
    near = near.view(-1, heads // key_heads, tail, tail)
    future = torch.ones(tail, tail, dtype=torch.bool, device=q.device).triu(1)
    near = near.masked_fill(future, float("-inf")).view(*far.shape[:3], tail)
    seen = far.shape[-1]
    weights = torch.cat((far, near), -1).softmax(-1)
    out = weights[..., :seen] @ values
    own = weights[..., seen:].reshape(count * key_heads * probes, -1, tail) @ own_v
    out = out.view(count, key_heads, probes, heads // key_heads, tail, width) + own.view(
        count, key_heads, probes, heads // key_heads, tail, width
    )
    joined: torch.Tensor = out.permute(2, 0, 4, 1, 3, 5).reshape(probes * count * tail, heads * width)
    return joined
