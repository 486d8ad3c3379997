"""Optimizers against torch's."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worker.zo.optimizers import Adam, Amsgrad, Momentum, Sgd, power

CASES = [
    (Sgd(), lambda p: torch.optim.SGD(p, lr=0.1)),
    (Momentum(0.9), lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9)),
    (Adam(0.9, 0.999), lambda p: torch.optim.Adam(p, lr=0.1)),
    (Adam(0.5, 0.9), lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.9))),
    (Amsgrad(0.9, 0.999), lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True)),
    (Amsgrad(0.5, 0.6), lambda p: torch.optim.Adam(p, lr=0.1, betas=(0.5, 0.6), amsgrad=True)),
]


@pytest.mark.parametrize(
    "optimizer, reference", CASES, ids=["sgd", "momentum", "adam", "adam-fast", "amsgrad", "amsgrad-fast"]
)
def test_equals_torch_in_float64(optimizer, reference):
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(50, 40)).astype(np.float32)
    theta = torch.zeros(40, dtype=torch.float64, requires_grad=True)
    torch_optimizer = reference([theta])
    mine, buffers = np.zeros(40, np.float32), tuple(np.zeros(40, np.float32) for _ in range(optimizer.buffers))
    for step, gradient in enumerate(gradients):
        theta.grad = torch.from_numpy(gradient.astype(np.float64))
        torch_optimizer.step()
        direction, buffers = optimizer.apply(gradient, buffers, step)
        assert direction.dtype == np.float32
        mine = mine - direction * np.float32(0.1)
    np.testing.assert_allclose(mine, theta.detach().numpy(), rtol=1e-4, atol=2e-6)


def test_amsgrad_keeps_the_largest_second_moment_where_adam_forgets_it():
    """One large gradient, then small ones: Adam's steps grow back, AMSGrad's do not."""
    adam, amsgrad = Adam(0.0, 0.5), Amsgrad(0.0, 0.5)
    kept = {o: tuple(np.zeros(1, np.float32) for _ in range(o.buffers)) for o in (adam, amsgrad)}
    moved = {}
    for step in range(30):
        gradient = np.full(1, 100.0 if step == 0 else 1.0, np.float32)
        for o in (adam, amsgrad):
            moved[o], kept[o] = o.apply(gradient, kept[o], step)
    assert moved[adam][0] == pytest.approx(1.0, rel=1e-4)
    assert moved[amsgrad][0] == pytest.approx(1 / np.sqrt(5000), rel=1e-4)


def test_dampened_momentum_is_an_average():
    """Of a constant gradient it is 1 - beta^t of it."""
    buffers = (np.zeros(3, np.float32),)
    for step in range(10):
        direction, buffers = Momentum(0.9, dampening=0.9).apply(np.ones(3, np.float32), buffers, step)
    np.testing.assert_allclose(direction, 1 - 0.9**10, rtol=1e-6)


@given(st.floats(0, 1), st.integers(0, 5000))
def test_power_is_the_power(base, exponent):
    assert power(base, exponent) == pytest.approx(base**exponent, rel=1e-11, abs=1e-300)
