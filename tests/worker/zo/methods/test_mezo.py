"""MeZO against its algorithm written out tensor by tensor in float64."""

import numpy as np
import pytest

from tests.worker.zo.problems import LAYOUT, Quadratic, run
from worker.zo import noise
from worker.zo.descent import Descent
from worker.zo.estimators import Estimator
from worker.zo.method import measured
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Sgd
from worker.zo.schedules import Schedule

SEED, RATE, EPS = 17, 0.05, 1e-2


def descent(kind="two_point", queries=1, decay=0.0, clip=None) -> Descent:
    estimator = Estimator(kind, EPS, queries)
    return Descent(AdapterSpace(LAYOUT, SEED), estimator, Sgd(), Schedule(RATE), clip, decay)


@pytest.mark.parametrize("kind, queries, decay", [("two_point", 1, 0.0), ("two_point", 3, 0.1), ("one_sided", 2, 0.1)])
def test_equals_its_formula(kind, queries, decay):
    f = Quadratic(LAYOUT)
    params, _, journal = run(descent(kind, queries, decay), f, 20)
    theta, _ = descent().init()
    theta = theta.astype(np.float64)
    for step in range(20):
        zs = [noise.normal(Place(SEED, Stream.PROBE, step, q), LAYOUT.size).astype(np.float64) for q in range(queries)]
        told = journal[step]
        if kind == "two_point":
            losses = [f(theta + sign * EPS * z) for z in zs for sign in (1, -1)]
            slopes = [(told[2 * q] - told[2 * q + 1]) / (2 * EPS) for q in range(queries)]
        else:
            losses = [f(theta), *(f(theta + EPS * z) for z in zs)]
            slopes = [(loss - told[0]) / EPS for loss in told[1:]]
        np.testing.assert_allclose(told, losses, atol=1e-6)
        gradient = sum(c * z for c, z in zip(slopes, zs, strict=True)) / queries
        theta = (1 - RATE * decay) * theta - RATE * gradient
    np.testing.assert_allclose(params, theta, atol=1e-6)


def test_starts_as_peft_does():
    params, _ = descent().init()
    for module, a, b in LAYOUT.pairs(params):
        assert np.abs(a).max() < module.inputs**-0.5
        assert np.abs(a).max() > 0.5 * module.inputs**-0.5
        assert not b.any()


def test_every_parameter_is_probed_and_the_probes_are_mirror_images():
    method = descent()
    params, state = method.init()
    plus, minus = (probe.params for probe in method.ask(params, state, ()))
    np.testing.assert_allclose((plus.astype(np.float64) + minus) / 2, params, atol=1e-7)
    z = (plus - params) / np.float32(EPS)
    for i in range(2 * len(LAYOUT.modules)):
        assert LAYOUT.tensor(z, i).std() > 0.5


def test_clip_bounds_the_move():
    params, state = descent(clip=2.0).init()
    moved, _ = descent(clip=2.0).tell(params, state, measured([1000.0, -1000.0]))
    z = noise.normal(Place(SEED, Stream.PROBE, 0), LAYOUT.size)
    np.testing.assert_allclose(params - moved, RATE * 2.0 * z, atol=1e-6)
