"""Block-wise MeZO against its formula in float64; other blocks keep their bits."""

import numpy as np
import pytest

from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, replay, run
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.noise import Place, Stream

RATE, EPS = 0.02, 1e-2
# Modules of each block: b M / N to (b + 1) M / N of five, rounded down.
BLOCKS = {1: [range(5)], 2: [range(2), range(2, 5)], 3: [range(1), range(1, 3), range(3, 5)],
          5: [range(i, i + 1) for i in range(5)]}  # fmt: skip


def moved(before, after) -> list[int]:
    """Tensors that have changed."""
    each = range(2 * len(LAYOUT.modules))
    return [i for i in each if LAYOUT.tensor(before, i).tobytes() != LAYOUT.tensor(after, i).tobytes()]


@pytest.mark.parametrize("blocks", BLOCKS)
def test_a_step_probes_and_moves_one_block_and_leaves_the_bits_of_the_others(blocks):
    method = made("blockwise", blocks=blocks, weight_decay=0.1)
    params, state = method.init()
    for _ in range(blocks):  # so that B is not 0, which decay would leave alone
        params, state = method.tell(params, state, measured([1.0, 0.5]))
    for step in range(blocks, 3 * blocks):
        tensors = [t for i in BLOCKS[blocks][step % blocks] for t in (2 * i, 2 * i + 1)]
        for probe in method.ask(params, state, ()):
            assert moved(params, probe.params) == tensors
        before = params
        params, state = method.tell(params, state, measured([1.0, 0.5]))
        assert moved(before, params) == tensors


@pytest.mark.parametrize("blocks", [2, 3])
def test_equals_its_formula(blocks):
    f = Quadratic(LAYOUT)
    method = made("blockwise", RATE, blocks=blocks, queries=2)
    params, _, journal = run(method, f, 24)
    theta = method.init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        mask = np.zeros(LAYOUT.size)
        for i in BLOCKS[blocks][step % blocks]:
            mask[LAYOUT.offsets[2 * i] : LAYOUT.offsets[2 * i + 2]] = 1
        zs = [mask * noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size) for q in range(2)]
        np.testing.assert_allclose(told, [f(theta + s * EPS * z) for z in zs for s in (1, -1)], atol=1e-6)
        slopes = [(told[2 * q] - told[2 * q + 1]) / (2 * EPS) for q in range(2)]
        theta = theta - RATE * sum(c * z for c, z in zip(slopes, zs, strict=True)) / 2
    np.testing.assert_allclose(params, theta, atol=1e-6)


@pytest.mark.parametrize("estimator", ["two_point", "one_sided"])
@pytest.mark.parametrize("blocks", [2, 3])
def test_all_blocks_in_one_step_equal_their_formula(blocks, estimator):
    """theta <- (1 - eta wd) theta - eta sum_b mean_q c_bq z_bq, each z of a block alone, all probed at one theta."""
    f, decay, queries = Quadratic(LAYOUT), 0.1, 2
    about = {"blocks": blocks, "queries": queries, "together": True, "estimator": estimator, "weight_decay": decay}
    method = made("blockwise", RATE, **about)
    params, _, journal = run(method, f, 12)
    theta = method.init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        zs = []
        for query in range(queries * blocks):
            z = np.zeros(LAYOUT.size)
            drawn = noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size)
            for i in BLOCKS[blocks][query % blocks]:
                at = slice(LAYOUT.offsets[2 * i], LAYOUT.offsets[2 * i + 2])
                z[at] = drawn[at]
            zs.append(z)
        ups = [f(theta + EPS * z) for z in zs]
        if estimator == "two_point":
            expected = [f(theta + s * EPS * z) for z in zs for s in (1, -1)]
            slopes = [(told[2 * q] - told[2 * q + 1]) / (2 * EPS) for q in range(len(zs))]
        else:
            expected = [f(theta), *ups]
            slopes = [(up - told[0]) / EPS for up in told[1:]]
        np.testing.assert_allclose(told, expected, atol=1e-6)
        moves = sum(c * z for c, z in zip(slopes, zs, strict=True)) / queries
        theta = (1 - RATE * decay) * theta - RATE * moves
    np.testing.assert_allclose(params, theta, atol=2e-6)


def test_blocks_together_reach_what_is_looked_for_and_replay_to_the_bit():
    f = Quadratic(LAYOUT)
    method = made("blockwise", blocks=3, together=True, steps=300)
    params, _, journal = run(method, f, 300)
    assert method.most == 6
    assert f(params) < 0.25
    assert replay(method, journal)[0].tobytes() == params.tobytes()


def test_blocks_in_turn_reach_what_is_looked_for_and_replay_to_the_bit():
    f = Quadratic(LAYOUT)
    method = made("blockwise", blocks=3, steps=600)
    params, _, journal = run(method, f, 600)
    assert f(method.init()[0]) == pytest.approx(2.5)
    assert f(params) < 0.25
    assert replay(method, journal)[0].tobytes() == params.tobytes()
