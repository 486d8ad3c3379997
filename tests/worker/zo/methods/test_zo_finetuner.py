"""ZO Fine-tuner against its formula in float64; the networks against torch; sigmas that are normalised exactly."""

import math

import numpy as np
import pytest
import torch

from tests.profiled import made as a_profile
from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, replay, run
from worker.runs import profiles
from worker.zo import learned, noise
from worker.zo.learned import Networks, normalised
from worker.zo.method import gone_back, measured
from worker.zo.methods.zo_finetuner import moments
from worker.zo.noise import Place, Stream

RATE, EPS = 0.02, 1e-2
PROFILE = a_profile("mlp", LAYOUT, hidden=7)
SIZES = np.diff(LAYOUT.offsets).astype(np.float64)


def networks():
    return {name: x.astype(np.float64) for name, x in profiles.read(PROFILE).tensors.items()}


def sized(theta, before, losses):
    """The formula, tensor by tensor, with the library's tanh."""
    n, found = networks(), []
    for b, (begin, end) in enumerate(zip(LAYOUT.offsets[:-1], LAYOUT.offsets[1:], strict=True)):
        x = np.array([theta[begin:end].mean(), theta[begin:end].var(), *losses, before[b]])
        found.append(abs(n["w2"][b] @ np.tanh(n["w1"][b] @ x + n["b1"][b]) + n["b2"][b]))
    return np.array(found) * math.sqrt(SIZES.sum() / (SIZES @ np.square(found)))


def test_equals_its_formula():
    f = Quadratic(LAYOUT)
    method = made("zo_finetuner", RATE, profile=PROFILE, queries=2)
    params, state, journal = run(method, f, 24)
    theta, sigma = method.init()[0].astype(np.float64), np.ones(len(LAYOUT.shapes))
    spread = []
    for step, told in enumerate(journal):
        if step:
            sigma = sized(theta, sigma, (np.mean(journal[step - 1][::2]), np.mean(journal[step - 1][1::2])))
        spread.append(sigma.max() / sigma.min())
        move = np.zeros(LAYOUT.size)
        for query in range(2):
            z = np.repeat(sigma, SIZES.astype(int)) * noise.normal(Place(SEED, Stream.PROBE, step, query), LAYOUT.size)
            up, down = told[2 * query : 2 * query + 2]
            np.testing.assert_allclose((up, down), [f(theta + EPS * z), f(theta - EPS * z)], atol=1e-5)
            move += (up - down) / (2 * EPS) * z / 2
        theta = theta - RATE * move
    np.testing.assert_allclose(params, theta, atol=1e-5)
    np.testing.assert_allclose(state.sigma[0], sigma, rtol=1e-5)
    assert max(spread) > 1.5


def test_a_profile_of_factors_fixes_the_sigmas():
    method = made("zo_finetuner", RATE, profile=a_profile("factors", LAYOUT))
    _, state, _ = run(method, Quadratic(LAYOUT), 9)
    wanted = np.arange(1, len(LAYOUT.shapes) + 1, dtype=np.float64)
    wanted *= math.sqrt(SIZES.sum() / (SIZES @ np.square(wanted)))
    np.testing.assert_allclose(state.sigma[0], wanted, rtol=1e-14)


def test_even_sigmas_are_mezo_to_the_bit():
    even = profiles.written("factors", "base", "m", LAYOUT, {"factors": np.full(len(LAYOUT.shapes), 3, np.float32)})
    params, _, journal = run(made("zo_finetuner", RATE, profile=even), Quadratic(LAYOUT), 20)
    plain, _, same = run(made("mezo", RATE), Quadratic(LAYOUT), 20)
    assert params.tobytes() == plain.tobytes()
    assert journal == same


def test_the_normalisation_is_exact():
    """Also where squares would leave float64."""
    for sigma in ([3.0, 0.5, 0.0], [1e-300, 2e-300, 0.0], [1e300, 1.0, 1e-300], [0.0, 0.0, 0.0]):
        sizes = np.array([24.0, 7.0, 1000.0])
        found = normalised(np.array(sigma), sizes)
        assert sizes @ found**2 == pytest.approx(sizes.sum(), rel=1e-14)
        if any(sigma):
            np.testing.assert_allclose(found / found.max(), np.array(sigma) / max(sigma), rtol=1e-14)


def test_tanh_is_within_its_bound():
    x = np.concatenate((np.linspace(-25, 25, 100_001), np.logspace(-300, 300, 601), [np.inf, 0.0]))
    x = np.concatenate((x, -x))
    assert np.abs(learned.tanh(x) - [math.tanh(value) for value in x]).max() < 1e-15


def test_networks_equal_torchs():
    tensors = {name: np.asarray(x) for name, x in profiles.read(PROFILE).tensors.items()}
    x = np.random.default_rng(3).normal(size=(len(LAYOUT.shapes), profiles.INPUTS))
    found = Networks(**tensors)(x)
    for b, value in enumerate(found):
        first, second = torch.nn.Linear(5, 7).double(), torch.nn.Linear(7, 1).double()
        first.weight.data, first.bias.data = torch.tensor(tensors["w1"][b]).double(), torch.tensor(tensors["b1"][b])
        second.weight.data, second.bias.data = (
            torch.tensor(tensors["w2"][b : b + 1]).double(),
            torch.tensor(tensors["b2"][b]),
        )
        first.bias.data, second.bias.data = first.bias.data.double(), second.bias.data.double()[None]
        with torch.no_grad():
            assert value == pytest.approx(float(second(torch.tanh(first(torch.tensor(x[b])))).abs()), rel=1e-13)


def test_moments_are_numpys():
    params = np.random.default_rng(4).normal(2, 3, LAYOUT.size).astype(np.float32)
    for i, (mean, var) in enumerate(moments(LAYOUT, params)):
        x = LAYOUT.tensor(params, i).astype(np.float64)
        assert (mean, var) == (pytest.approx(x.mean(), rel=1e-12), pytest.approx(x.var(), rel=1e-12))


def test_losses_of_any_size_keep_sigmas_finite_and_a_step_left_out_is_not_read():
    method = made("zo_finetuner", RATE, profile=PROFILE, clip=1.0)
    params, state = method.init()
    params, state = method.tell(params, state, measured([1e290, -1e290]))
    params, after = method.tell(params, state, measured([1.0, 0.5]))
    assert np.isfinite(after.sigma[0]).all()
    _, out = method.tell(params, after, measured([np.nan, 0.5]))
    assert (out.losses, out.sigma[0] is after.sigma[0]) == ((1.0, 0.5), True)


def test_a_run_that_went_back_reads_what_its_origin_had():
    f = Quadratic(LAYOUT)
    method = made("zo_finetuner", RATE, profile=PROFILE)
    _, _, journal = run(method, f, 12)
    there, origin = replay(method, journal[:5])
    back = gone_back(origin, 12)
    assert back.losses == tuple(journal[4])
    asked = method.ask(there, back, ())
    sigma = sized(there.astype(np.float64), origin.sigma[0], journal[4])
    z = np.repeat(sigma, SIZES.astype(int)) * noise.normal(Place(SEED, Stream.PROBE, 12), LAYOUT.size)
    np.testing.assert_allclose(asked[0].params, there + EPS * z, atol=1e-6)
