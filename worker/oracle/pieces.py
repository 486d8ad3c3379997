"""Sequences of examples laid out for one padded forward pass. Knows examples and tensors; no model and no loss."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from worker.types import Example


@dataclass(frozen=True)
class Padded:
    """`ids`, `mask`, `positions` [sequences, longest] of what is forwarded, right-padded; `starts` [sequences] tokens
    before it are known. Row `wanted[k]` of the flat [sequences * longest] predicts something; target j of all
    candidates in order is `targets[j]`, read at wanted row `which[j]`."""

    ids: torch.Tensor
    mask: torch.Tensor
    positions: torch.Tensor
    starts: tuple[int, ...]
    wanted: torch.Tensor
    which: torch.Tensor
    targets: torch.Tensor


def padded(examples: Sequence[Example], filler: int, continued: bool) -> Padded:
    """All sequences of these examples; where `continued`, only what comes behind each example's `start`."""
    flat = [(e, s) for e, example in enumerate(examples) for s in range(len(example.sequences))]
    row = {place: number for number, place in enumerate(flat)}
    starts = tuple(examples[e].start if continued else 0 for e, _ in flat)
    pieces = [examples[e].sequences[s][start:] for (e, s), start in zip(flat, starts, strict=True)]
    longest = max(map(len, pieces))
    ids = torch.full((len(pieces), longest), filler, dtype=torch.long)
    mask = torch.zeros_like(ids)
    positions = torch.zeros_like(ids)
    for r, (piece, start) in enumerate(zip(pieces, starts, strict=True)):
        ids[r, : len(piece)] = torch.from_numpy(piece)
        mask[r, : len(piece)] = 1
        positions[r] = start + torch.arange(longest).clamp_max(len(piece) - 1)  # padding stays within the context
    read: list[int] = []
    targets: list[int] = []
    for e, example in enumerate(examples):
        for c in example.candidates:
            r = row[e, c.sequence]
            read += (r * longest + c.positions.astype(int) - starts[r]).tolist()
            targets += c.targets.tolist()
    wanted, which = torch.unique(torch.tensor(read, dtype=torch.long), return_inverse=True)
    return Padded(ids, mask, positions, starts, wanted, which, torch.tensor(targets, dtype=torch.long))


def parts(examples: Sequence[Example], sequences: int, tokens: int) -> Iterator[range]:
    """Whole examples in order, so many that their sequences are at most `sequences` and, padded, at most `tokens`
    tokens; at least one each."""
    first, count, longest = 0, 0, 0
    for number, example in enumerate(examples):
        length = max(len(ids) for ids in example.sequences)
        more, wide = count + len(example.sequences), max(longest, length)
        if number > first and (more > sequences or more * wide > tokens):
            yield range(first, number)
            first, more, wide = number, len(example.sequences), length
        count, longest = more, wide
    if first < len(examples):
        yield range(first, len(examples))
