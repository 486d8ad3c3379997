"""Attention over prompts and branches against softmax attention written out in float64, token by token."""

import numpy as np
import pytest
import torch

from worker.engine.attention import BranchAttention

LAYERS, KEY_HEADS, GROUP, WIDTH = 2, 2, 3, 8
SCALE = 0.3


def rows(rng: np.random.Generator, pieces: list[tuple[int, int, list[int]]]):
    """(spans, positions, branches, prompt of each piece) of pieces (prompt or -1, common tokens, tokens a branch);
    positions begin behind a prompt of 5 * (prompt + 1) tokens."""
    spans, positions, branches, prompts, at = [], [], [], [], 0
    for prompt, common, tails in pieces:
        begin = 5 * (prompt + 1)
        own = list(range(begin, begin + common))
        on = [0] * common
        for number, tail in enumerate(tails, start=1):
            own += range(begin + common, begin + common + tail)
            on += [number] * tail
        spans.append((at, at + len(own)))
        at += len(own)
        positions += own
        branches += on
        prompts.append(prompt)
    return spans, np.array(positions, np.int64), np.array(branches, np.int32), prompts


def written_out(layer, q, k, v, spans, positions, branches, prompts, caches) -> np.ndarray:
    out = np.zeros(q.shape)
    for (start, stop), prompt in zip(spans, prompts, strict=True):
        for i in range(start, stop):
            seen = [j for j in range(start, stop) if positions[j] <= positions[i] and branches[j] in (0, branches[i])]
            for head in range(KEY_HEADS * GROUP):
                keys, values = k[seen, head // GROUP], v[seen, head // GROUP]
                if prompt >= 0:
                    before = caches[prompt][layer, :, head // GROUP].double().numpy()
                    keys, values = np.concatenate([before[0], keys]), np.concatenate([before[1], values])
                scores = keys @ q[i, head] * SCALE
                weights = np.exp(scores - scores.max())
                out[i, head] = weights / weights.sum() @ values
    return out


CASES = {
    "one length, in order": [(0, 3, []), (1, 3, []), (2, 3, []), (0, 3, [])],
    "mixed lengths, a prompt that several continue": [(0, 2, [3, 1]), (1, 7, []), (0, 1, [1, 1, 4]), (2, 4, [2])],
    "some without a prompt": [(-1, 6, [2, 2]), (1, 2, []), (-1, 3, []), (0, 2, [1])],
    "none with a prompt": [(-1, 6, [2, 2]), (-1, 1, [])],
    "single tokens": [(0, 1, []), (0, 1, []), (3, 1, [])],
}


@pytest.mark.parametrize("together", [0, 12, 1000])
@pytest.mark.parametrize("case", CASES)
def test_equals_the_definition(case: str, together: int) -> None:
    """Prompts read alone, copied side by side, and some of each."""
    rng = np.random.default_rng(0)
    spans, positions, branches, prompts = rows(rng, CASES[case])
    caches = [
        torch.from_numpy(rng.standard_normal((LAYERS, 2, KEY_HEADS, 5 * (i + 1), WIDTH)).astype(np.float32))
        for i in range(4)
    ]
    attention = BranchAttention(spans, positions, branches, prompts, caches, torch.device("cpu"), together)
    count = len(positions)
    for layer in range(LAYERS):
        q = rng.standard_normal((count, KEY_HEADS * GROUP, WIDTH)).astype(np.float32)
        k, v = (rng.standard_normal((count, KEY_HEADS, WIDTH)).astype(np.float32) for _ in range(2))
        got = attention(layer, *map(torch.from_numpy, (q, k, v)), SCALE)
        expected = written_out(
            layer, *(x.astype(np.float64) for x in (q, k, v)), spans, positions, branches, prompts, caches
        )
        np.testing.assert_allclose(got.numpy(), expected, rtol=0, atol=2e-6)


def test_a_piece_that_is_not_finite_stays_alone() -> None:
    """Whatever it is padded beside: pieces of other tenants, continuing the same prompt or another."""
    rng = np.random.default_rng(1)
    pieces = [(0, 2, [1]), (0, 3, []), (1, 2, []), (-1, 4, [])]
    spans, positions, branches, prompts = rows(rng, pieces)
    caches = [torch.randn(1, 2, KEY_HEADS, 5 * (i + 1), WIDTH) for i in range(2)]
    count = len(positions)
    q, k, v = (torch.randn(count, h, WIDTH) for h in (KEY_HEADS * GROUP, KEY_HEADS, KEY_HEADS))
    for together in (0, 1000):
        attention = BranchAttention(spans, positions, branches, prompts, caches, torch.device("cpu"), together)
        sound = attention(0, q, k, v, SCALE)
        for start, stop in spans:
            for bad in (float("nan"), float("inf")):
                q2, k2, v2 = (x.clone() for x in (q, k, v))
                for x in (q2, k2, v2):
                    x[start:stop] = bad
                out = attention(0, q2, k2, v2, SCALE)
                others = [i for i in range(count) if not start <= i < stop]
                assert torch.equal(out[others], sound[others])
                assert not torch.isfinite(out[start:stop]).all()
