"""The prompts that a wave's pieces continue, each found in the cache or computed. Knows claims and sizes; no engine."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from worker.engine.prompt_cache import PromptCache
from worker.types import Example

V = TypeVar("V")
Claim = tuple[str, bytes]  # scope, prompt
Compute = Callable[[Sequence[NDArray[np.int32]]], Sequence[V]]


def prompts(
    continued: Sequence[tuple[str, Example] | None],
    cache: PromptCache[V],
    compute: Compute[V],
    *,
    token_bytes: int,
    max_tokens: int,
) -> tuple[list[int], list[V]]:
    """For every piece the number of the prompt it continues (-1: none), and what the cache holds of those prompts.

    What a scope has not put before is computed, as many prompts at a time as `max_tokens` allow, at least one, and put:
    a value takes `token_bytes` a token.
    """
    number: dict[bytes, int] = {}
    values: dict[bytes, V] = {}
    missing: dict[Claim, Example] = {}
    for scope, example in (c for c in continued if c is not None):
        claim = scope, example.prompt_key
        if claim in missing:
            continue
        number.setdefault(example.prompt_key, len(number))
        found = cache.get(*claim)
        if found is None:
            missing[claim] = example
        else:
            values[example.prompt_key] = found
    for claim, value in _computed(missing, compute, max_tokens):
        values[claim[1]] = cache.put(*claim, value, missing[claim].start * token_bytes)
    return [-1 if c is None else number[c[1].prompt_key] for c in continued], [values[key] for key in number]


def _computed(missing: Mapping[Claim, Example], compute: Compute[V], max_tokens: int) -> Iterator[tuple[Claim, V]]:
    claims = list(missing)
    while claims:
        tokens, part = 0, list[Claim]()
        while claims and (not part or tokens + missing[claims[0]].start <= max_tokens):
            tokens += missing[claims[0]].start
            part.append(claims.pop(0))
        yield from zip(part, compute([missing[c].prompt for c in part]), strict=True)
