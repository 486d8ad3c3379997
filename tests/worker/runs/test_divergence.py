"""When a held-out loss has left its start: rarely by chance, surely where it has; and what a run does about it."""

import math

import numpy as np
import pytest

from db.contract.history import Restart
from tests.worker.linear import spec
from worker.runs.cohort import Evaluation
from worker.runs.divergence import CRITICAL, FEWEST, Rise, Watch, allowed, critical, recalled, rise, standard_error

JOBS, EVALUATIONS = 100, 20


def tail(x: float, freedom: int) -> float:
    """P(T > x) of Student's t, by the midpoint rule over u = x / t."""
    u = (np.arange(20_000) + 0.5) / 20_000
    scale = math.exp(math.lgamma((freedom + 1) / 2) - math.lgamma(freedom / 2)) / math.sqrt(freedom * math.pi)
    return float((scale * (1 + (x / u) ** 2 / freedom) ** (-(freedom + 1) / 2) * x / u**2).mean())


def test_the_table_is_of_students_t():
    assert [tail(t, freedom) for freedom, t in CRITICAL] == pytest.approx([1e-4] * len(CRITICAL), rel=2e-3)
    assert critical(FEWEST) == CRITICAL[0][1]
    assert critical(201) == 3.837
    assert [critical(n) for n in range(FEWEST, 2000)] == sorted(
        (critical(n) for n in range(FEWEST, 2000)), reverse=True
    )


@pytest.mark.parametrize("skew", [-0.4, -0.05, 0.0, 0.05, 0.4])
def test_what_is_allowed_is_the_inverse_of_halls_transformation(skew):
    found = allowed(4.0, skew)
    assert found + skew * found**2 / 3 + skew**2 * found**3 / 27 + skew / 6 == pytest.approx(4.0)
    assert (found < 4.0) == (skew > 0) or skew == 0


def test_two_fifths_of_the_rows_certainly_wrong_is_divergence():
    """t is only 4.1 then, for these rows are as skewed as they are far."""
    assert rise([1.1] * 30, singles([50.0] * 12 + [0.0] * 18)).diverged


def singles(losses) -> list[tuple[float, int]]:
    return [(float(x), 1) for x in losses]


@pytest.mark.parametrize("rows", [6, 20, 200])
@pytest.mark.parametrize("shape", ["normal", "skewed"])
def test_noise_alone_is_hardly_ever_called_divergence(rows, shape):
    """Losses of rows wander by half of themselves and their mean stays: of jobs with 20 evaluations each, at most 1 in
    50 is stopped by mistake."""
    rng = np.random.default_rng(rows)
    wrong = 0
    for _ in range(JOBS):
        start = rng.exponential(0.7, rows)
        drawn = (
            rng.normal(0, 1, (EVALUATIONS, rows)) if shape == "normal" else 1 - rng.exponential(1, (EVALUATIONS, rows))
        )
        now = start + 0.4 * drawn
        wrong += any(rise(list(start), singles(x)).diverged for x in now)
    assert wrong <= JOBS / 50


@pytest.mark.parametrize("rows, least", [(60, 0.4), (200, 0.99)])
def test_a_rise_as_that_of_a_rate_too_high_is_seen(rows, least):
    """0.392 to 0.644: some rows far worse, others better."""
    rng = np.random.default_rng(1)
    seen = []
    for _ in range(200):
        start = rng.exponential(0.392, rows)
        now = start * rng.gamma(1.0, 0.6, rows) + rng.exponential(0.644 - 0.392 * 0.6, rows)
        seen.append(rise(list(start), singles(now)).diverged)
    assert np.mean(seen) >= least


def test_a_loss_that_exploded_or_is_not_finite_is_seen_at_once():
    start = np.random.default_rng(2).exponential(3.98, 12)
    assert rise(list(start), singles(start + np.linspace(14, 21, 12))).diverged
    assert rise(list(start), singles([*start[:-1], math.nan])).diverged
    assert not rise(list(start), singles(start)).diverged
    assert not rise(list(start), singles(start - 3)).diverged


def test_a_rise_that_only_pairing_makes_visible_is_not_divergence():
    start = np.random.default_rng(3).exponential(0.7, 200)
    small = rise(list(start), singles(start + 0.1))
    assert small.nats == pytest.approx(0.1)
    assert small.error == pytest.approx(0, abs=1e-12)
    assert not small.diverged


@pytest.mark.parametrize("now, diverged", [(1.9, False), (2.1, True)])
def test_few_rows_have_the_loss_itself_for_their_noise(now, diverged):
    found = rise([0.5, 1.5], [(now / 2 * 2, 1), (now / 2 * 2, 1)])
    assert (found.error, found.diverged) == (None, diverged)


def test_the_standard_error_of_rows_of_many_tokens_is_that_of_the_ratio():
    """Against the spread over resampled corpora."""
    rng = np.random.default_rng(4)
    counts = rng.integers(1, 40, 300)
    level = rng.normal(3.0, 0.5, 300)
    totals = level * counts
    drawn = rng.integers(0, 300, (4000, 300))
    ratios = totals[drawn].sum(1) / counts[drawn].sum(1)
    assert standard_error(list(totals), [int(c) for c in counts]) == pytest.approx(float(ratios.std()), rel=0.05)
    means = standard_error(list(level), [1] * 300)
    assert means == pytest.approx(float(level.std(ddof=1)) / math.sqrt(300))


def heard(step: int, loss: float, *, diverged: bool = False) -> Evaluation:
    return Evaluation(step, loss, 0.0, 4, 1, diverged=diverged, terms=(1.0, 2.0) if step == 0 else ())


def test_what_a_run_had_come_to_is_recalled():
    job = spec(on_divergence="restart", max_restarts=1, patience=3)
    restart = Restart(21, 10)
    evaluations = [heard(0, 3.0), heard(10, 2.0), heard(20, 5.0, diverged=True), heard(30, 2.5), heard(40, 2.0)]
    assert recalled(job, evaluations[:2], (), 11) == Watch(start=(1.0, 2.0))
    assert recalled(job, evaluations[:3], (restart,), 21) == Watch((1.0, 2.0), restarts=(restart,))
    assert recalled(job, evaluations[:4], (restart,), 31) == Watch((1.0, 2.0), 1, restarts=(restart,))
    job = job.model_copy(update={"steps": 60})
    again = [*evaluations, heard(50, 9.0, diverged=True)]
    assert recalled(job, again, (restart,), 51).stopped == "diverged"
    assert recalled(job, [*evaluations, heard(50, 2.1)], (restart,), 51).stopped == "patience"
    assert recalled(job, [*evaluations, heard(50, 2.1)], (restart,), 50).stopped is None, "measured, and no step taken"


def test_a_rise_that_is_no_number_is_one():
    assert Rise(math.nan, None, 0.0).diverged
    assert not Rise(0.0, None, 0.0).diverged


@pytest.mark.parametrize("asked", [{"on_divergence": "stop"}, {"on_divergence": "restart"}, {"patience": 3}])
def test_what_nothing_is_measured_for_is_refused(asked):
    with pytest.raises(ValueError, match="needs held-out rows"):
        spec(eval_rows=0, **asked)
