"""Where a wave enters the model: the hidden states below the layers that its adapters act on, each found in the cache
or computed. Knows pieces, claims and sizes; no engine."""

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch

from worker.engine.prompt_cache import PromptCache
from worker.scoring.packing import Piece

Claim = tuple[str, bytes]  # scope, what the hidden states follow from
Compute = Callable[[Sequence[tuple[str, Piece]]], Sequence[torch.Tensor]]


def entries(
    laid: Sequence[tuple[str, Piece]], below: int, cache: PromptCache[torch.Tensor], compute: Compute, token_bytes: int
) -> torch.Tensor:
    """[tokens, width]: what enters layer `below` for the pieces of a wave, each with its scope, as they are laid.

    What a scope has not put before is computed, all of it at once, and put: a value takes `token_bytes` a token.
    """
    values: dict[Claim, torch.Tensor] = {}
    missing: dict[Claim, Piece] = {}
    claims = [(scope, key(piece, below)) for scope, piece in laid]
    for claim, (_, piece) in zip(claims, laid, strict=True):
        if claim in values or claim in missing:
            continue
        found = cache.get(*claim)
        if found is None:
            missing[claim] = piece
        else:
            values[claim] = found
    if missing:
        computed = compute([(scope, piece) for (scope, _), piece in missing.items()])
        for (claim, piece), value in zip(missing.items(), computed, strict=True):
            values[claim] = cache.put(*claim, value, piece.tokens * token_bytes)
    return torch.cat([values[claim] for claim in claims])


def key(piece: Piece, below: int) -> bytes:
    """What the hidden states below layer `below` of a piece follow from, and nothing else: told apart from every other
    piece's, and from a prompt's ids, whose bytes are whole numbers of four."""
    return b"".join(_parts(piece, below)) + b"."


def _parts(piece: Piece, below: int) -> Iterator[bytes]:
    example = piece.example
    chosen = [example.sequences[s] for s in piece.sequences]
    yield np.array([below, example.start, example.shared, *map(len, chosen)], np.int32).tobytes()
    for sequence in chosen:
        yield sequence.tobytes()
