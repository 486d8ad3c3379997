"""DiZO against its formula in float64: the projection's phases, fixed points and clip, and where it starts from."""

import math

import numpy as np
import pytest

from tests.worker.zo.methods.deep import LAYOUT, SEED, made
from tests.worker.zo.problems import Quadratic, heard_of, replay, run
from worker.zo import noise
from worker.zo.method import measured
from worker.zo.noise import Place, Stream

RATE, EPS = 0.01, 1e-2
BY = {"project_every": 3, "project_pairs": 2, "project_eps": 0.1, "project_rate": 0.3, "tau": 0.2}
MODULES = len(LAYOUT.modules)


def spread(ratios):
    """Of each entry its module's ratio, float64 [P]."""
    sizes = [LAYOUT.offsets[2 * i + 2] - LAYOUT.offsets[2 * i] for i in range(MODULES)]
    return np.repeat(np.asarray(ratios, dtype=np.float64), sizes)


def ratios_of(before, after, start):
    """(after - start) / (before - start) of each module, by least squares."""
    found = []
    for i in range(MODULES):
        part = slice(LAYOUT.offsets[2 * i], LAYOUT.offsets[2 * i + 2])
        was, now = (before[part] - start[part]).astype(np.float64), (after[part] - start[part]).astype(np.float64)
        found.append(float(was @ now / (was @ was)))
    return found


def test_equals_its_formula():
    f = Quadratic(LAYOUT)
    method = made("dizo", RATE, **BY)
    params, _, journal = run(method, f, 24)
    start = theta = method.init()[0].astype(np.float64)
    for step, told in enumerate(journal):
        z = noise.normal(Place(SEED, Stream.PROBE, step), LAYOUT.size).astype(np.float64)
        losses = [f(theta + EPS * z), f(theta - EPS * z)]
        theta = theta - RATE * (told[0] - told[1]) / (2 * EPS) * z
        if step % 3 == 2:
            r = np.ones(MODULES)
            for pair in range(2):
                n = noise.normal(Place(SEED, Stream.RATIO, step, pair), MODULES).astype(np.float64)
                losses += [f(start + spread(r + s * 0.1 * n) * (theta - start)) for s in (1, -1)]
                c = (told[2 + 2 * pair] - told[3 + 2 * pair]) / 0.2
                r = np.clip(r - 0.3 * c * n, 0.8, 1.2)
            theta = start + spread(r) * (theta - start)
        np.testing.assert_allclose(told, losses, atol=2e-6)
    np.testing.assert_allclose(params, theta, atol=2e-6)


def test_a_step_that_projects_asks_as_many_as_it_is_priced_by_and_others_the_descent_s():
    method = made("dizo", **BY)
    _, _, journal = run(method, Quadratic(LAYOUT), 9)
    assert [len(row) for row in journal] == [2, 2, 6] * 3
    assert method.most == 6


def test_each_pair_looks_around_where_the_one_before_has_led():
    method = made("dizo", **{**BY, "project_every": 1})
    params, state = method.init()
    row = [1.0, 0.5]
    centres = []
    for up, down in ((2.0, 1.0), (1.0, 3.0)):
        plus, minus = (probe.params for probe in method.ask(params, state, measured(row)))
        centres.append((plus.astype(np.float64) + minus) / 2)
        row += [up, down]
    assert method.ask(params, state, measured(row)) == []
    plain, _ = made("mezo").tell(params, made("mezo").init()[1], measured([1.0, 0.5]))
    n = noise.normal(Place(SEED, Stream.RATIO, 0, 0), MODULES).astype(np.float64)
    np.testing.assert_allclose(centres[0], plain, atol=1e-6)
    first = np.clip(1 - 0.3 * (2.0 - 1.0) / 0.2 * n, 0.8, 1.2)
    np.testing.assert_allclose(ratios_of(plain, centres[1], params), first, atol=1e-5)


def test_without_a_slope_the_ratios_stay_and_so_does_the_descent():
    method = made("dizo", **{**BY, "project_every": 1})
    params, state = method.init()
    moved, after = method.tell(params, state, measured([1.0, 0.5, 2.0, 2.0, 3.0, 3.0]))
    plain, _ = made("mezo").tell(params, made("mezo").init()[1], measured([1.0, 0.5]))
    np.testing.assert_allclose(moved, plain, atol=1e-7)
    assert after.step == 1


def test_where_nothing_has_moved_it_stays():
    """theta = theta_0 is a fixed point whatever the ratios."""
    method = made("dizo", **{**BY, "project_every": 1})
    params, state = method.init()
    moved, _ = method.tell(params, state, measured([1.0, 1.0, 2.0, 1.0, 1.0, 3.0]))
    assert moved.tobytes() == params.tobytes()


@pytest.mark.parametrize("tau", [0.05, 0.2, 1.0])
def test_no_ratio_leaves_its_range(tau):
    method = made("dizo", **{**BY, "project_every": 1, "tau": tau})
    params, state = method.init()
    for sign in (1, -1):
        for size in (1e3, 1e30, 1e300):
            losses = measured([1.0, 0.5, sign * size, -sign * size, 1.0, 1.0])
            moved, after = method.tell(params, state, losses)
            plain, _ = made("mezo").tell(params, made("mezo").init()[1], measured([1.0, 0.5]))
            n = noise.normal(Place(SEED, Stream.RATIO, 0, 0), MODULES)
            wanted = 1 - tau * np.sign(n) * sign
            np.testing.assert_allclose(ratios_of(plain, moved, params), wanted, atol=1e-5)
            assert after.skipped == 0


def test_the_anchor_is_where_the_job_began_also_from_a_parent():
    method = made("dizo", **{**BY, "project_every": 1})
    parent = np.random.default_rng(1).standard_normal(LAYOUT.size).astype(np.float32)
    _, state = method.init()
    moved, after = method.tell(parent, state, measured([math.nan, 0.5]))
    assert after.start == ()
    moved, after = method.tell(moved, after, measured([1.0, 0.5, 1.0, 1.0, 1.0, 1.0]))
    assert after.start[0].tobytes() == parent.tobytes()
    again, after = method.tell(moved, after, measured([1.0, 0.5, 1.0, 1.0, 1.0, 1.0]))
    assert after.start[0].tobytes() == parent.tobytes()
    assert again.tobytes() != moved.tobytes()


@pytest.mark.parametrize("bad", range(6))
def test_a_number_that_is_not_finite_ends_the_step_and_changes_nothing(bad):
    method = made("dizo", **{**BY, "project_every": 1})
    params, state = method.init()
    broken = [1.0, 0.5, 2.0, 1.0, 1.0, 2.0]
    broken[bad] = math.inf
    heard = measured(broken[: bad // 2 * 2 + 2])  # all of the phase in which it was heard
    assert method.ask(params, state, heard) == []
    for row in (heard, measured(broken)):
        same, after = method.tell(params, state, row)
        assert same.tobytes() == params.tobytes()
        assert (after.step, after.skipped, after.start) == (1, 1, ())


@pytest.mark.parametrize("count", [0, 1, 3, 4, 5, 7, 8])
def test_losses_of_another_number_of_probes_are_refused(count):
    method = made("dizo", **{**BY, "project_every": 1})
    with pytest.raises(ValueError, match="losses for"):
        method.tell(*method.init(), measured([1.0, 0.5] * (count // 2) + [1.0] * (count % 2)))
    other = made("dizo", **BY)
    with pytest.raises(ValueError, match="losses for"):
        other.tell(*other.init(), measured([1.0, 0.5, 1.0, 1.0, 1.0, 1.0]))


def test_reaches_what_is_looked_for_and_replays_to_the_bit():
    f = Quadratic(LAYOUT)
    method = made("dizo", RATE / 2, steps=500, **{**BY, "project_every": 20})
    params, state, journal = run(method, f, 500)
    assert f(params) < 0.5 < f(method.init()[0])
    again, its_state = replay(method, journal)
    assert (again.tobytes(), its_state.start[0].tobytes()) == (params.tobytes(), state.start[0].tobytes())
    assert len(heard_of(method, params, state, f)) == 2


def test_half_the_rate_is_of_the_descent():
    halved = made("dizo").halved(1)
    assert halved.descent.schedule.peak == made("dizo").descent.schedule.peak / 2
    assert halved.projection == made("dizo").projection
