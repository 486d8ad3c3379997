"""SensZOQ against its formula in float64: its mask is the profile's, at every step, and A is the profile's too."""

import numpy as np
import pytest

from tests.profiled import START
from tests.profiled import made as a_profile
from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, run
from worker.runs import profiles
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream

RATE, EPS = 0.02, 1e-2
PROFILE = a_profile("mask", LAYOUT)


def kept():
    return np.unpackbits(profiles.read(PROFILE).tensors["mask"], count=LAYOUT.size).astype(np.float64)


@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_equals_its_formula(decay):
    f = Quadratic(LAYOUT)
    method = made("senszoq", RATE, profile=PROFILE, queries=2, weight_decay=decay)
    params, _, journal = run(method, f, 24)
    theta, m = AdapterSpace(LAYOUT, START).start()[0].astype(np.float64), kept()
    for step, told in enumerate(journal):
        move = np.zeros(LAYOUT.size)
        for query in range(2):
            z = m * noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size)
            up, down = told[2 * query : 2 * query + 2]
            np.testing.assert_allclose((up, down), [f(theta + EPS * z), f(theta - EPS * z)], atol=1e-6)
            move += (up - down) / (2 * EPS) * z / 2
        theta = theta * (1 - RATE * decay * m) - RATE * move
    np.testing.assert_allclose(params, theta, atol=1e-6)


@pytest.mark.parametrize("optimizer", ["sgd", "momentum", "adam"])
def test_what_the_mask_leaves_out_keeps_its_bits(optimizer):
    method = made("senszoq", RATE, profile=PROFILE, optimizer=optimizer, weight_decay=0.01)
    start = method.init()[0]
    params, _, _ = run(method, Quadratic(LAYOUT), 20)
    m = kept() == 1
    assert params[~m].tobytes() == start[~m].tobytes()
    moved = params[m] != start[m]
    assert moved.mean() > 0.9
    assert 0.1 < m.mean() < 0.4


def test_a_starts_as_the_profile_says_and_the_noise_is_the_jobs():
    method = made("senszoq", RATE, profile=PROFILE)
    params, state = method.init()
    assert params.tobytes() == AdapterSpace(LAYOUT, START).start()[0].tobytes()
    assert params.tobytes() != AdapterSpace(LAYOUT, SEED).start()[0].tobytes()
    z = noise.normal(Place(SEED, Stream.PROBE, 0), LAYOUT.size) * kept().astype(np.float32)
    np.testing.assert_array_equal(method.ask(params, state, ())[0].params, params + z * np.float32(EPS))
    assert method.tell(params, state, measured([1.0, 1.0]))[0].tobytes() == params.tobytes()
