"""Attention of tokens that continue prompts computed before and branch. Knows tensors; no engine, no trials.

Each token attends to its prompt, whose keys and values are given, and within its own piece to what precedes it on its
branch. The two parts are computed apart, so that a prompt is read once for all probes, candidates and tenants that
continue it, and put together by their log-sum-exps: exact up to rounding. Sums are float32.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

Rows = NDArray[np.int64]
FULL = 0.75  # what is padded to one length is at least this full
AREA = 1 << 22  # scores of one head that one call may make


@dataclass(frozen=True)
class _Group:
    """Row lists padded to one length: `rows` [lists, longest] of the tokens that ask, what they see [lists, 1, longest,
    seen] or [lists, 1, 1, seen] as 0 and -inf (None: all of it), and for prompts the keys and values they see
    [layers, 2, lists, heads, seen, width]."""

    rows: torch.Tensor
    mask: torch.Tensor | None
    cache: torch.Tensor | None = None


class BranchAttention:
    """The attention of one forward pass, made once and called by every layer.

    `spans` are the pieces' rows, in order and without gaps; `positions` and `branches` [tokens] say what a token may
    see of its piece: positions up to its own on branch 0 and on its own branch. `prompts` has for every piece the
    number of its prompt in `caches`, -1 for none; a cache is [layers, 2, heads, length, width]. Caches of up to
    `together` tokens are copied side by side, so that few calls serve many; longer ones are read where they are.
    Between two copies and two calls there is a `pause`.
    """

    def __init__(
        self,
        spans: Sequence[tuple[int, int]],
        positions: NDArray[np.int64],
        branches: NDArray[np.int32],
        prompts: Sequence[int],
        caches: Sequence[torch.Tensor],
        device: torch.device,
        together: int,
        pause: Callable[[], None] = lambda: None,
    ) -> None:
        self._device, self._pause = device, pause
        pieces = [np.arange(*span) for span in spans]
        parts = _alike([len(p) for p in pieces], longest=1 << 62)
        rows, at = _padded([[pieces[i] for i in part] for part in parts], len(positions))
        self._own = [_Group(self._to(r), self._visible(r, positions, branches)) for r in rows]
        # Pieces of one length in their own order are read and written as they lie.
        self._plain = len(rows) == 1 and np.array_equal(at, np.arange(rows[0].size))
        self._own_at = self._to(at)

        askers: list[list[Rows]] = [[] for _ in caches]
        for piece, prompt in zip(pieces, prompts, strict=True):
            if prompt >= 0:
                askers[prompt].append(piece)
        asked = [i for i, a in enumerate(askers) if a]
        parts = _alike([caches[i].shape[3] for i in asked], longest=together)
        numbers = [[asked[i] for i in part] for part in parts]
        rows, at = _padded([[np.concatenate(askers[i]) for i in part] for part in numbers], len(positions))
        self._prompt = [
            _Group(self._to(r), *self._beside([caches[i] for i in part])) for r, part in zip(rows, numbers, strict=True)
        ]
        self._continuing = self._to(np.flatnonzero(at >= 0))
        self._all_continue = bool((at >= 0).all())
        self._prompt_at = self._to(at[at >= 0])

    def __call__(
        self, layer: int, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, scale: float
    ) -> torch.Tensor:
        """[tokens, heads, width] of query [tokens, heads, width], key and value [tokens, key heads, width]."""
        q, k, v = query.float() * scale, key.float(), value.float()
        own, weight = self._own_part(q, k, v)
        if self._prompt:
            parts = [self._prompt_part(layer, group, q) for group in self._prompt]
            prompt = torch.cat([p for p, _ in parts])[self._prompt_at]
            prompt_weight = torch.cat([w for _, w in parts])[self._prompt_at]
            if self._all_continue:
                own = torch.lerp(own, prompt, torch.sigmoid(prompt_weight - weight)[..., None])
            else:
                at = self._continuing
                share = torch.sigmoid(prompt_weight - weight[at])[..., None]
                own[at] = torch.lerp(own[at], prompt, share)
        return own.to(query.dtype)

    def _own_part(self, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        outs = []
        for group in self._own:
            lists, longest = group.rows.shape
            if self._plain:
                mine, keys, values = (x.view(lists, longest, *x.shape[1:]) for x in (q, k, v))
            else:
                mine, keys, values = (x[group.rows] for x in (q, k, v))
            outs.append(_attend(mine, keys.transpose(1, 2), values.transpose(1, 2), group.mask))
            self._pause()
        if self._plain:
            return outs[0]
        return torch.cat([o for o, _ in outs])[self._own_at], torch.cat([w for _, w in outs])[self._own_at]

    def _prompt_part(self, layer: int, group: _Group, q: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        assert group.cache is not None
        keys, values = group.cache[layer].float()
        out = _attend(q[group.rows], keys, values, group.mask)
        self._pause()
        return out

    def _visible(self, rows: Rows, positions: NDArray[np.int64], branches: NDArray[np.int32]) -> torch.Tensor:
        """The mask of padded pieces. A place that is filled up repeats the piece's own first token, so that nothing of
        another tenant, not even a NaN times 0, can reach a row; it is seen by none but other such places."""
        at_position, on_branch = positions[rows], branches[rows]
        filled = np.zeros(rows.shape, bool)
        filled[:, 1:] = rows[:, 1:] == rows[:, :1]
        seen = at_position[:, None, :] <= at_position[:, :, None]
        seen &= (on_branch[:, None, :] == 0) | (on_branch[:, None, :] == on_branch[:, :, None])
        seen &= ~filled[:, None, :]
        return self._additive(seen)[:, None]

    def _beside(self, caches: Sequence[torch.Tensor]) -> tuple[torch.Tensor | None, torch.Tensor]:
        """Caches side by side [layers, 2, prompts, heads, longest, width] and which of it is there; one as it is."""
        if len(caches) == 1:
            return None, caches[0][:, :, None]
        lengths = np.array([c.shape[3] for c in caches])
        layers, two, heads, _, width = caches[0].shape
        out = caches[0].new_zeros(layers, two, len(caches), heads, int(lengths.max()), width)
        for i, cache in enumerate(caches):
            out[:, :, i, :, : cache.shape[3]] = cache
            self._pause()
        there = np.arange(lengths.max()) < lengths[:, None]
        return None if there.all() else self._additive(there)[:, None, None], out

    def _additive(self, seen: NDArray[np.bool_]) -> torch.Tensor:
        return self._to(np.where(seen, np.float32(0), np.float32(-np.inf)))

    def _to(self, array: NDArray[np.int64] | NDArray[np.float32]) -> torch.Tensor:
        return torch.from_numpy(array).to(self._device)


def _attend(
    q: torch.Tensor, keys: torch.Tensor, values: torch.Tensor, mask: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Softmax attention of q [lists, asking, heads, width] over keys and values [lists, key heads, seen, width].

    Returns the outputs [lists * asking, heads, width] and the log of the sum of exponentials [lists * asking, heads].
    """
    lists, asking, heads, width = q.shape
    key_heads, seen = keys.shape[1], keys.shape[2]
    group = heads // key_heads
    mine = q.view(lists, asking, key_heads, group, width).permute(0, 2, 3, 1, 4)
    mine = mine.reshape(lists * key_heads, group * asking, width)
    scores = torch.bmm(mine, keys.reshape(lists * key_heads, seen, width).transpose(1, 2))
    if mask is not None:
        scores = scores.view(lists, heads, asking, seen).add_(mask).view(lists * key_heads, group * asking, seen)
    peak = scores.amax(-1, keepdim=True)
    scores = scores.sub_(peak).exp_()
    total = scores.sum(-1, keepdim=True)
    out = torch.bmm(scores, values.reshape(lists * key_heads, seen, width)).div_(total)
    out = out.view(lists, key_heads, group, asking, width).permute(0, 3, 1, 2, 4)
    weight = (peak + total.log()).view(lists, heads, asking).transpose(1, 2)
    return out.reshape(lists * asking, heads, width), weight.reshape(lists * asking, heads)


def _alike(lengths: Sequence[int], longest: int) -> list[list[int]]:
    """Numbers of what is padded together, so that little is padding and no call makes too many scores; what is longer
    than `longest` is alone. Numbers of one group rise where all lengths are equal."""
    groups: list[list[int]] = []
    head = 0
    for i in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        full = groups and lengths[i] >= FULL * head and (len(groups[-1]) + 1) * head * head <= AREA
        if full and head <= longest:
            groups[-1].append(i)
        else:
            groups.append([i])
            head = lengths[i]
    return groups


def _padded(groups: Sequence[Sequence[Rows]], tokens: int) -> tuple[list[Rows], Rows]:
    """Each group's row lists as [lists, longest], short ones filled up with their own first row, and for each token its
    place in the groups' outputs laid end to end, -1 where it is in none."""
    at = np.full(tokens, -1, np.int64)
    padded, begin = [], 0
    for lists in groups:
        longest = max(map(len, lists))
        rows = np.repeat(np.array([r[0] for r in lists])[:, None], longest, axis=1)
        for i, r in enumerate(lists):
            rows[i, : len(r)] = r
            at[r] = begin + i * longest + np.arange(len(r))
        padded.append(rows)
        begin += rows.size
    return padded, at
