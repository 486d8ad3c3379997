"""Random layouts, probes and examples for the scoring tests. Knows core types and a model folder."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from transformers import AutoModelForCausalLM

from worker.types import Candidate, Example, Layout, Module, Params, Trial

VOCAB = 500  # below the tiny models' 512
CONTEXT = 256


def linears(path: Path) -> list[Module]:
    """Every linear of the model except the head, as transformers names them, in its order."""
    model = AutoModelForCausalLM.from_pretrained(path)
    return [
        Module(name, m.in_features, m.out_features)
        for name, m in model.named_modules()
        if isinstance(m, torch.nn.Linear) and name != "lm_head"
    ]


def layout(modules: list[Module], rank: int, alpha: float, *suffixes: str) -> Layout:
    """A layout of the modules with these last names; all of them where none is given."""
    chosen = [m for m in modules if not suffixes or m.name.rsplit(".", 1)[-1] in suffixes]
    assert chosen
    return Layout(rank, alpha, tuple(chosen))


def probe(rng: np.random.Generator, shape: Layout) -> Params:
    """Parameters whose update is about a third of the weights' size: it moves log-probabilities by tenths of a nat and
    leaves the model well-conditioned (with updates eight times the weights fp32 itself is off by 0.02 nats)."""
    out = []
    for i, (a, b) in enumerate(shape.shapes):
        size = 1 / np.sqrt(b) if i % 2 == 0 else 0.3 / (shape.scaling * np.sqrt(b))
        out.append((size * rng.standard_normal(a * b)).astype(np.float32))
    return np.concatenate(out)


def tokens(rng: np.random.Generator, length: int) -> np.ndarray:
    return rng.integers(0, VOCAB, length, dtype=np.int32)


def text(rng: np.random.Generator, length: int, scored: int | None = None) -> Example:
    """One sequence whose last `scored` tokens (all, if None) are predicted."""
    ids = tokens(rng, length + 1)
    first = 0 if scored is None else length - scored
    return Example((ids[:-1],), (Candidate(0, np.arange(first, length, dtype=np.int32), ids[first + 1 :]),))


def choice(rng: np.random.Generator, prompt: int) -> Example:
    """Three candidates over two sequences: the first two share one, and read its last row with different targets."""
    ids = tokens(rng, prompt)
    more = tokens(rng, 3)
    long = np.concatenate([ids, more[:2]]).astype(np.int32)
    last = np.int32(prompt - 1)
    return Example(
        (ids, long),
        (
            Candidate(0, np.array([last], np.int32), tokens(rng, 1)),
            Candidate(0, np.array([last], np.int32), tokens(rng, 1)),
            Candidate(1, np.array([last, last + 1, last + 2], np.int32), more),
        ),
        label=int(rng.integers(3)),
    )


def lm(rng: np.random.Generator, shape: Layout | None, params: Params | None, rows: int = 3) -> Trial:
    return Trial(shape, params, tuple(text(rng, int(rng.integers(2, 40)), 2) for _ in range(rows)), "lm")


def crowd(rng: np.random.Generator, modules: list[Module]) -> list[Trial]:
    """Ten trials of different tenants: ranks 1, 2 and 8, different modules and alphas, bare base model in between,
    language modelling and choice, more adapters than slots and one trial longer than a wave."""
    attention = layout(modules, 2, 16.0, "q_proj", "v_proj")
    everything = layout(modules, 8, 4.0)
    outputs = layout(modules, 8, 32.0, "o_proj", "out_proj", "down_proj", "fc2")
    single = layout(modules, 1, 1.0, "k_proj", "up_proj", "fc1")
    shapes = [attention, everything, None, outputs, single, everything, None, attention, everything, outputs]
    out = []
    for i, shape in enumerate(shapes):
        params = None if shape is None else probe(rng, shape)
        if i % 3 == 2:
            out.append(Trial(shape, params, tuple(choice(rng, int(rng.integers(2, 40))) for _ in range(3)), "choice"))
        else:
            out.append(lm(rng, shape, params, rows=12 if i == 5 else 3))
    return out


INVOCATION = (7, 9)
# PEFT's aLoRA cannot act on OPT's MLP, whose input transformers flattens: its mask has the batch's shape.
ANSWERABLE = {"opt": ("q_proj", "k_proj", "v_proj", "out_proj")}


def activated(shape: Layout) -> Layout:
    """The same adapter, acting from INVOCATION on."""
    return replace(shape, invocation=INVOCATION)


def answer(rng: np.random.Generator, prompt: int, *tails: int) -> Example:
    """`prompt` tokens, INVOCATION, then a candidate of each length in `tails`: candidates of one token share one
    sequence, longer ones have what precedes them in common. The invocation is nowhere else."""
    common = np.concatenate([_without_invocation(rng, prompt), np.array(INVOCATION, np.int32)])
    last = len(common) - 1
    if max(tails) == 1:
        row = np.array([last], np.int32)
        return Example((common,), tuple(Candidate(0, row, tokens(rng, 1)) for _ in tails), start=prompt)
    sequences, candidates = [], []
    for number, length in enumerate(tails):
        more = _without_invocation(rng, length)
        sequences.append(np.concatenate([common, more[:-1]]))
        candidates.append(Candidate(number, np.arange(last, last + length, dtype=np.int32), more))
    shared = len(common) if len(tails) > 1 else 0
    return Example(tuple(sequences), tuple(candidates), label=0, shared=shared, start=prompt)


def _without_invocation(rng: np.random.Generator, length: int) -> np.ndarray:
    ids = tokens(rng, length)
    return np.where(np.isin(ids, INVOCATION), 11, ids).astype(np.int32)
