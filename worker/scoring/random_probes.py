"""Random probes on random tokens, for an engine to be checked with. Knows core types only."""

from collections.abc import Sequence

import numpy as np

from worker.types import Candidate, Example, Layout, Module, Trial

INVOCATION = (1, 2)


def probes(modules: Sequence[Module], max_rank: int, context: int, vocab: int, seed: int) -> list[Trial]:
    """A base trial; two probes of different ranks that fill every module; and, of each rank, one that acts from an
    invocation on, where the context has room for a prompt. Texts are at most 24 tokens long."""
    rng = np.random.default_rng(seed)
    length = min(24, context)
    whole = tuple(_text(rng, vocab, n) for n in (length, max(1, length // 2), length))
    answers = tuple(_answer(rng, vocab, n) for n in (length, length - 3)) if length >= 8 else ()
    # PEFT cannot activate a module whose input transformers flattens, as OPT's MLP: attention will do.
    attention = tuple(m for m in modules if ".self_attn." in m.name)
    out = [Trial(None, None, whole, "lm")]
    for rank in (min(2, max_rank), min(8, max_rank)):
        out.append(_probe(rng, Layout(rank, 16.0, tuple(modules)), whole))
        if answers:
            out.append(_probe(rng, Layout(rank, 16.0, attention, INVOCATION), answers))
    return out


def _probe(rng: np.random.Generator, layout: Layout, examples: tuple[Example, ...]) -> Trial:
    tensors = [rng.standard_normal(outer * inner) / inner for outer, inner in layout.shapes]
    return Trial(layout, np.concatenate(tensors).astype(np.float32), examples, "lm")


def _text(rng: np.random.Generator, vocab: int, length: int) -> Example:
    ids = rng.integers(0, vocab, length + 1, dtype=np.int32)
    return Example((ids[:-1],), (Candidate(0, np.arange(length, dtype=np.int32), ids[1:]),))


def _answer(rng: np.random.Generator, vocab: int, length: int) -> Example:
    """A text with two tokens to predict after the invocation, which is nowhere else in it."""
    ids = rng.integers(max(INVOCATION) + 1, vocab, length + 1, dtype=np.int32)
    start = length - 1 - len(INVOCATION)
    ids[start : start + len(INVOCATION)] = INVOCATION
    rows = np.arange(length - 2, length, dtype=np.int32)
    return Example((ids[:-1],), (Candidate(0, rows, ids[rows + 1]),), start=start)
