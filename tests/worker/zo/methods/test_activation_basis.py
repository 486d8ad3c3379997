"""A descent on an activation basis against its formula in float64; what it publishes is an ordinary LoRA."""

import numpy as np
import pytest

from tests.profiled import made as a_profile
from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, run, updates
from worker.runs import profiles
from worker.zo import noise
from worker.zo.noise import Place, Stream

RATE, EPS = 0.02, 1e-2
PROFILE = a_profile("basis", LAYOUT)


def rows():
    return [profiles.read(PROFILE).tensors[module.name].astype(np.float64) for module in LAYOUT.modules]


def loss_of(f, theta):
    return f(theta.astype(np.float64))


@pytest.mark.parametrize("optimizer", ["sgd", "adam"])
def test_equals_its_formula(optimizer):
    """B as a matrix of its own, with A a constant; Adam (1412.6980) written out."""
    f = Quadratic(LAYOUT)
    method = made("activation_basis", RATE, profile=PROFILE, optimizer=optimizer, weight_decay=0.1)
    params, _, journal = run(method, f, 24)
    b = [np.zeros((module.outputs, LAYOUT.rank)) for module in LAYOUT.modules]
    m, v = [np.zeros_like(x) for x in b], [np.zeros_like(x) for x in b]
    for step, (up, down) in enumerate(journal):
        whole = noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size)
        z = [LAYOUT.tensor(whole, 2 * i + 1).astype(np.float64) for i in range(len(b))]
        parts = zip(rows(), b, z, strict=True)
        there = np.concatenate([np.concatenate((a.ravel(), (x + EPS * y).ravel())) for a, x, y in parts])
        assert up == pytest.approx(loss_of(f, there), abs=1e-6)
        for i, y in enumerate(z):
            move = g = (up - down) / (2 * EPS) * y
            if optimizer == "adam":
                m[i], v[i] = 0.9 * m[i] + 0.1 * g, 0.999 * v[i] + 0.001 * g * g
                move = m[i] / (1 - 0.9 ** (step + 1)) / (np.sqrt(v[i] / (1 - 0.999 ** (step + 1))) + 1e-8)
            b[i] = b[i] * (1 - RATE * 0.1) - RATE * move
    for (_, a, found), row, wanted in zip(LAYOUT.pairs(params), rows(), b, strict=True):
        np.testing.assert_array_equal(a, row)
        np.testing.assert_allclose(found, wanted, atol=2e-6)


def test_an_update_stays_in_the_space_that_the_basis_spans():
    params, _, _ = run(made("activation_basis", RATE, profile=PROFILE), Quadratic(LAYOUT), 20)
    for w, a in zip(updates(LAYOUT, params), rows(), strict=True):
        assert np.abs(w).max() > 1e-3
        np.testing.assert_allclose(w @ a.T @ a, w, atol=1e-12)
