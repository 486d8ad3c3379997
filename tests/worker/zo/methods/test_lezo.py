"""LeZO and random entries against their formula in float64: the density, and one mask for a probe and its move."""

from itertools import pairwise

import numpy as np
import pytest

from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, replay, run
from worker.types import Layout, Module
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.methods.lezo import Entries, Layers
from worker.zo.noise import Place, Stream

RATE, EPS = 0.02, 1e-2
RANGES = ((0, 2), (2, 4), (4, 5))  # of modules: the layers of LAYOUT
BOTH = ("layers", "entries")
BIG = Layout(8, 16.0, (Module("x", 300, 200), Module("y", 100, 500)))


def mask(shape, step, layout=LAYOUT):
    ones = np.ones(layout.size, dtype=np.float32)
    return shape.shaped(ones, ones, step)


def twin(by: str, step: int, density: float, every: int):
    """The mask written out from the same words, float64."""
    window = step // every
    found = np.zeros(LAYOUT.size)
    if by == "layers":
        words = noise.words(Place(SEED, Stream.LAYERS, window), 3).tolist()
        for layer in sorted(range(3), key=lambda i: words[i])[: round(density * 3)]:
            first, last = RANGES[layer]
            found[LAYOUT.offsets[2 * first] : LAYOUT.offsets[2 * last]] = 1
        return found
    words = noise.words(Place(SEED, Stream.ENTRIES, window), LAYOUT.size).tolist()
    for begin, end in zip(LAYOUT.offsets[:-1], LAYOUT.offsets[1:], strict=True):
        least = sorted(range(begin, end), key=lambda i: words[i])[: round(density * (end - begin))]
        found[least] = 1
    return found


@pytest.mark.parametrize("by", BOTH)
@pytest.mark.parametrize("every", [1, 7])
def test_equals_its_formula(by, every):
    f = Quadratic(LAYOUT)
    method = made("lezo", RATE, by=by, density=0.7, mask_every=every, queries=2)
    params, _, journal = run(method, f, 24)
    theta = method.init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        m = twin(by, step, 0.7, every)
        zs = [m * noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size) for q in range(2)]
        np.testing.assert_allclose(told, [f(theta + s * EPS * z) for z in zs for s in (1, -1)], atol=1e-6)
        slopes = [(told[2 * q] - told[2 * q + 1]) / (2 * EPS) for q in range(2)]
        theta = theta - RATE * sum(c * z for c, z in zip(slopes, zs, strict=True)) / 2
    np.testing.assert_allclose(params, theta, atol=1e-6)


@pytest.mark.parametrize("by", BOTH)
def test_a_probe_and_its_move_share_a_mask_and_what_is_kept_is_not_scaled(by):
    method = made("lezo", by=by, density=0.5, mask_every=2, weight_decay=0.1)
    params, state = method.init()
    masks = []
    for step in range(8):
        probe = method.ask(params, state, ())[0].params
        z = noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size)
        changed = probe != params
        assert probe[changed].tobytes() == (params + z * np.float32(EPS))[changed].tobytes()
        before = params
        params, state = method.tell(params, state, measured([1.0, 0.5]))
        assert not (params != before)[~changed & (z != 0)].any()
        assert ((params != before) | (z == 0))[changed].all()
        masks.append(mask(method.shape, step))
    same = [a.tobytes() == b.tobytes() for a, b in pairwise(masks)]
    assert same[::2] == [True] * 4
    assert not all(same)


@pytest.mark.parametrize("density", [0.01, 0.1, 0.5, 0.9, 1.0])
def test_every_tensor_keeps_its_share_of_entries_and_all_come_in_turn(density):
    shape = Entries(BIG, SEED, density, 1)
    often = np.zeros(BIG.size)
    for step in range(20):
        found = mask(shape, step, BIG)
        assert set(np.unique(found)) <= {0.0, 1.0}
        for i, (rows, columns) in enumerate(BIG.shapes):
            assert BIG.tensor(found, i).sum() == round(density * rows * columns)
        often += found
    # Masks of two steps are independent: an entry is in k of 20 as a binomial says, within five of its deviations.
    spread = np.sqrt(20 * density * (1 - density))
    assert abs(often.var() ** 0.5 - spread) < 0.05 * max(spread, 0.1)


def test_a_share_of_layers_is_kept_and_all_come_in_turn():
    layers = tuple((i, i + 1) for i in range(30))
    layout = Layout(1, 2.0, tuple(Module(f"l.{i}.x", 2, 2) for i in range(30)))
    shape = Layers(layout, SEED, 0.25, 1, layers)
    kept = np.array([mask(shape, step, layout).reshape(30, -1)[:, 0] for step in range(200)])
    assert (kept.sum(axis=1) == 8).all()  # 7.5, rounded
    expected, spread = 200 * 8 / 30, np.sqrt(200 * 8 / 30 * 22 / 30)
    assert (abs(kept.sum(axis=0) - expected) < 5 * spread).all()


@pytest.mark.parametrize("by", BOTH)
def test_reaches_what_is_looked_for_and_replays_to_the_bit(by):
    f = Quadratic(LAYOUT)
    method = made("lezo", RATE / 2, by=by, density=0.5, steps=600)
    params, _, journal = run(method, f, 600)
    assert f(params) < 0.3 < f(method.init()[0])
    assert replay(method, journal)[0].tobytes() == params.tobytes()


def test_whatever_the_seed_another_mask():
    assert mask(Entries(BIG, 1, 0.5, 1), 0, BIG).tobytes() != mask(Entries(BIG, 2, 0.5, 1), 0, BIG).tobytes()


def test_the_benchmark_s_mask_is_not_of_its_density():
    """ZO-Bench zeroes what a normal variate below the sparsity hits (zo-bench/gradient_pruning/pruning_utils.py,
    fast_random_mask_like): sparsity 0 leaves half, 0.9 leaves 18 %. Ours leaves what is asked for."""
    drawn = np.random.default_rng(0).standard_normal(100_000)
    for sparsity, left in ((0.0, 0.5), (0.9, 0.184)):
        assert np.mean(~(drawn < sparsity)) == pytest.approx(left, abs=0.01)
        assert mask(Entries(BIG, SEED, 1 - sparsity, 1), 0, BIG).mean() == pytest.approx(1 - sparsity, abs=1e-3)
