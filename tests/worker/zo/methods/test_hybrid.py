"""The hybrid against its two halves written out in float64."""

from dataclasses import replace

import numpy as np
import pytest

from db.contract import methods
from db.contract.refusal import Unfit
from tests.worker.zo.problems import LAYOUT, Quadratic, arrays
from worker.zo import noise
from worker.zo.estimators import Estimator
from worker.zo.method import Measured
from worker.zo.methods.hybrid import Hybrid
from worker.zo.moving import Rule
from worker.zo.noise import Place, Stream
from worker.zo.optimizers import Adam, Sgd
from worker.zo.schedules import Schedule

SEED, RATE, ZO, EPS, DECAY, STEPS = 17, 0.02, 0.01, 1e-3, 0.1, 25
SINCE = 2  # of two modules the second
CUT = LAYOUT.offsets[SINCE]


def method(kind="two_point", queries=1, zo_clip=None) -> Hybrid:
    top, below = Rule(Adam(0.9, 0.99), Schedule(RATE), DECAY), Rule(Sgd(), Schedule(ZO), DECAY)
    return Hybrid(LAYOUT, SEED, SINCE, top, below, Estimator(kind, EPS, queries), zo_clip=zo_clip)


def heard(f: Quadratic, probes) -> tuple[Measured, ...]:
    found = []
    for probe in probes:
        gradient = None
        if probe.gradient:
            gradient = f.gradient(probe.params).astype(np.float32)
            gradient[: LAYOUT.offsets[probe.since]] = 0
        found.append(Measured(f(probe.params), gradient=gradient))
    return tuple(found)


def run(method: Hybrid, f: Quadratic, steps: int):
    params, state = method.init()
    for _ in range(steps):
        params, state = method.tell(params, state, heard(f, method.ask(params, state, ())))
    return params, state


@pytest.mark.parametrize("kind, queries", [("two_point", 2), ("one_sided", 3)])
def test_equals_its_formula(kind, queries):
    f = Quadratic(LAYOUT)
    params, _ = run(method(kind, queries), f, STEPS)
    theta = method().init()[0].astype(np.float64)
    m, v = np.zeros(LAYOUT.size - CUT), np.zeros(LAYOUT.size - CUT)
    for step in range(STEPS):
        estimate = np.zeros(LAYOUT.size)
        for q in range(queries):
            z = np.zeros(LAYOUT.size)
            z[:CUT] = noise.normal(Place(SEED, Stream.BELOW, step, q), CUT)
            up, down = f(theta + EPS * z), f(theta - EPS * z)
            c = (up - down) / (2 * EPS) if kind == "two_point" else (up - f(theta)) / EPS
            estimate += c * z / queries
        g = f.gradient(theta)[CUT:]
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        hat = (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.99 ** (step + 1))) + 1e-8)
        theta[:CUT] = (1 - ZO * DECAY) * theta[:CUT] - ZO * estimate[:CUT]
        theta[CUT:] = (1 - RATE * DECAY) * theta[CUT:] - RATE * hat
    np.testing.assert_allclose(params, theta, atol=2e-3)
    assert f(params) < 0.8 * f(method().init()[0])


@pytest.mark.parametrize("kind, queries, most", [("two_point", 2, 7), ("one_sided", 3, 6)])
def test_probes_leave_the_top_alone_and_cost_what_they_are_priced_at(kind, queries, most):
    asked = method(kind, queries)
    params, state = asked.init()
    first, *others = asked.ask(params, state, ())
    assert first.gradient
    assert first.since == SINCE
    assert first.params.tobytes() == params.tobytes()
    assert len({p.params.tobytes() for p in (first, *others)}) == 1 + len(others)
    for probe in others:
        assert not probe.gradient
        assert probe.params[CUT:].tobytes() == params[CUT:].tobytes()
    about = {"name": "hybrid", "eps": EPS, "learning_rate": RATE, "zo_learning_rate": ZO}
    settings = methods.settings(**about, estimator=kind, queries=queries)
    assert asked.most == settings.probes == most == 3 + len(others)
    assert [x.size for x in arrays(state)] == [LAYOUT.size - CUT] * 2


def test_a_step_that_is_not_finite_only_counts():
    f = Quadratic(LAYOUT)
    params, state = run(method(), f, 3)
    first, *others = heard(f, method().ask(params, state, ()))
    wild = np.full_like(first.gradient, np.nan)
    bad = [
        (replace(first, gradient=wild), *others),
        (first, replace(others[0], loss=np.inf), *others[1:]),
        (first, replace(others[0], loss=1e40), *others[1:]),
    ]
    for row in bad:
        same, after = method().tell(params, state, row)
        assert same.tobytes() == params.tobytes()
        assert [x.tobytes() for x in arrays(after)] == [x.tobytes() for x in arrays(state)]
        assert (after.step, after.skipped, after.nonfinite) == (4, 1, 1)
    moved, _ = method(zo_clip=1.0).tell(params, state, bad[2])
    assert np.isfinite(moved).all()


def test_some_layer_stays_below_the_top():
    settings = methods.settings(name="hybrid", eps=EPS, learning_rate=RATE, zo_learning_rate=ZO, top_layers=2)
    names = [f"model.layers.{i}.self_attn.{half}" for i in (3, 7, 11) for half in ("q_proj", "v_proj")]
    assert settings.top(names) == 2
    with pytest.raises(Unfit, match="2 layers have an adapter and one stays below: at most 1"):
        settings.fits(names[:4])
