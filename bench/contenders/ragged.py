"""How the strongest loop lays out a step: every probe's sequences end to end, attention by groups of like length.

Knows examples and tensors, no model. All probes of a step score the same examples, so one layout is repeated for each.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from worker.types import Example

FULL = 0.9  # sequences that are padded to one length fill it at least so far
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Group:
    """Sequences padded to one length for one call of attention: token numbers [sequences, longest], a short one's last
    token repeated (what follows a token is never seen by it). `at` is None where the tokens lie so already."""

    at: torch.Tensor | None
    shape: tuple[int, int]


@dataclass(frozen=True)
class Batch:
    """The tokens [probes * n] of a step. `rows` [probes * m] are the token numbers whose logits are wanted; within one
    probe candidate token j reads wanted row `which[j]` and is `targets[j]`; `cuts` are where each candidate's end.
    `back` [probes * n] finds each token in the groups' outputs laid end to end, None where they lie in order; `acting`
    are the token numbers of a probe that the adapter acts on, None where it acts on all. `placed` has for each sequence
    of a probe (example, first token, tokens)."""

    probes: int
    ids: torch.Tensor
    positions: torch.Tensor
    rows: torch.Tensor
    which: torch.Tensor
    targets: torch.Tensor
    cuts: Ints
    groups: tuple[Group, ...]
    back: torch.Tensor | None
    acting: torch.Tensor | None
    placed: tuple[tuple[int, int, int], ...]


def batch(
    examples: Sequence[Example], probes: int, device: torch.device, full: float = FULL, tails: bool = False
) -> Batch:
    """Lay out `examples` for `probes` probes, longest sequences first; of `tails` only what follows the prompts."""
    flat = [
        (e, s, ids[example.start :] if tails else ids)
        for e, example in enumerate(examples)
        for s, ids in enumerate(example.sequences)
    ]
    flat.sort(key=lambda x: -len(x[2]))
    lengths = np.array([len(ids) for _, _, ids in flat])
    starts = np.cumsum(lengths) - lengths
    n = int(lengths.sum())
    ids = np.concatenate([x for _, _, x in flat]).astype(np.int64)
    ahead = np.array([examples[e].start if tails else 0 for e, _, _ in flat])  # tokens of the prompt left out
    positions = np.arange(n) - np.repeat(starts - ahead, lengths)
    begin = {(e, s): int(at) for (e, s, _), at in zip(flat, starts - ahead, strict=True)}
    rows, targets, cuts = [], [], []
    for e, example in enumerate(examples):
        for c in example.candidates:
            rows.append(begin[e, c.sequence] + c.positions.astype(np.int64))
            targets.append(c.targets.astype(np.int64))
            cuts.append(len(c.targets))
    distinct, which = np.unique(np.concatenate(rows), return_inverse=True)
    groups, back = _groups(starts, lengths, n, probes, full, device)
    acts = np.concatenate(
        [np.arange(0 if tails else examples[e].start, len(x)) + at for (e, _, x), at in zip(flat, starts, strict=True)]
    )

    def to(array: Ints) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.int64)).to(device)

    return Batch(
        probes=probes,
        ids=to(np.tile(ids, probes)),
        positions=to(np.tile(positions, probes)),
        rows=to(_repeat(distinct, probes, n)),
        which=to(which),
        targets=to(np.concatenate(targets)),
        cuts=np.cumsum(cuts),
        groups=groups,
        back=back,
        acting=None if len(acts) == n else to(acts),
        placed=tuple((e, int(at), len(x)) for (e, _, x), at in zip(flat, starts, strict=True)),
    )


def _repeat(tokens: Ints, probes: int, n: int) -> Ints:
    """Token numbers of one probe, for each probe in turn."""
    return (tokens[None] + n * np.arange(probes)[:, None]).reshape(-1)


def _groups(
    starts: Ints, lengths: Ints, n: int, probes: int, full: float, device: torch.device
) -> tuple[tuple[Group, ...], torch.Tensor | None]:
    groups: list[Group] = []
    back = np.zeros((probes, n), np.int64)
    first = base = 0
    while first < len(lengths):
        longest = int(lengths[first])
        last = int(np.searchsorted(-lengths, -full * longest, side="right"))
        count = last - first
        inside = np.minimum(np.arange(longest)[None], lengths[first:last, None] - 1)
        at = (starts[first:last, None] + inside)[None] + n * np.arange(probes)[:, None, None]
        place = base + np.arange(probes * count * longest).reshape(probes, count, longest)
        for i in range(count):
            length, begin = int(lengths[first + i]), int(starts[first + i])
            back[:, begin : begin + length] = place[:, i, :length]
        base += probes * count * longest
        even = bool(lengths[last - 1] == longest) and count == len(lengths)
        index = None if even else torch.from_numpy(at.reshape(probes * count, longest)).to(device)
        groups.append(Group(index, (probes * count, longest)))
        first = last
    lie = len(groups) == 1 and groups[0].at is None
    return tuple(groups), None if lie else torch.from_numpy(back.reshape(-1)).to(device)


def attend(
    groups: Sequence[Group], back: torch.Tensor | None, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor
) -> torch.Tensor:
    """Causal attention within each sequence, [tokens, heads * width] of q, k, v [tokens, heads or key heads, width]."""
    outs = []
    for group in groups:
        count, longest = group.shape
        if group.at is None:
            mine = [x.view(count, longest, *x.shape[1:]) for x in (q, k, v)]
        else:
            mine = [x[group.at] for x in (q, k, v)]
        a, b, c = (x.transpose(1, 2) for x in mine)
        out = F.scaled_dot_product_attention(a, b, c, is_causal=True, enable_gqa=k.shape[1] != q.shape[1])
        outs.append(out.transpose(1, 2).reshape(count * longest, -1))
    if back is None:
        return outs[0]
    return (outs[0] if len(outs) == 1 else torch.cat(outs))[back]
