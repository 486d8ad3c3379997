"""What every method promises, checked for each: a newcomer is one line of METHODS.

The digests pin the bits: they are what the first machine computed, with every SIMD extension, from losses that are
constants. They may change only with the algorithm, and then every recorded journal loses its adapter.
"""

import hashlib
import math
import os
import subprocess
import sys
from typing import Any, NamedTuple

import numpy as np
import pytest

from db.contract import methods
from db.contract.methods import MethodSpec
from db.contract.spec import AdapterSpec, JobSpec
from tests.worker.zo.problems import WHOLE, WIDE, Logistic, Quadratic, arrays, replay, run
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs import recipes
from worker.runs.replay import Point
from worker.types import Layout
from worker.zo.method import Method, Probe, measured

PINNED_STEPS = 37


class Case(NamedTuple):
    digest: str
    method: MethodSpec


def case(digest: str, name: str, learning_rate: float, **settings: object) -> Case:
    own = {"nu": 8, "window_rank": 2} if name == "lozo" else {}
    own |= {} if name == "random_search" else {"eps": 1e-3}
    return Case(digest, methods.settings(name=name, learning_rate=learning_rate, **{**own, **settings}))


METHODS = {
    "mezo": case("95cd3ed52e0ce20f", "mezo", 0.005),
    "mezo one-sided": case("e5ea6a781b7dddc3", "mezo", 0.005, estimator="one_sided", queries=3),
    "mezo queries, clip, decay": case("574361baab52ef52", "mezo", 0.01, queries=4, clip=3.0, weight_decay=0.01),
    "mezo population, B alone": case("8b728e1b3be1a350", "mezo", 0.005, estimator="population", queries=8, a_factor=0),
    "mezo momentum, linear": case("efbea4fe22860877", "mezo", 0.0005, optimizer="momentum", schedule="linear"),
    "mezo adam, cosine": case("a3b4f395f047dd45", "mezo", 0.01, optimizer="adam", schedule="cosine", warmup_steps=9),
    "lozo bank": case("1202f603d0b1af86", "lozo", 0.006),
    "lozo freeze": case("7a2c99b0b680c3b4", "lozo", 0.003, refresh="freeze", window_rank=8),
    "lozo recompress": case("b91866a75c943d15", "lozo", 0.005, refresh="recompress"),
    "lozo-m": case("1688c0b122a97115", "lozo", 0.006, optimizer="momentum", weight_decay=0.01),
    "mezo amsgrad": case("7720b177d402f649", "mezo", 0.01, optimizer="amsgrad", schedule="cosine"),
    "mezo scalar": case(
        "b6dc4332cb2a8bac", "mezo", 0.01, optimizer="scalar", queries=2, schedule="linear", weight_decay=0.01
    ),
    "adamezo": case("3d60703cefd15ee9", "adamezo", 0.01, window=7, schedule="linear"),
    "cons": case("ca04ae444bf06058", "cons", 0.01),
    "hizoo": case("47f5503bfc88afd7", "hizoo", 0.005, smoothing=1e-4),
    "guided": case("ea1a804373be450a", "guided", 0.005, pool=4),
    "guided best, B more": case(
        "364223bc298cb5b7", "guided", 0.005, pool=3, pick="best", a_factor=0.5, weight_decay=0.01
    ),
    "random search": case("e202fc53473d1ae1", "random_search", 0.2, candidates=5, schedule="linear"),
}
# Losses of the quadratic that are less than 0.1 are not to be had by trying places at random.
REACHED = {"random search": 0.45}
each = pytest.mark.parametrize("name", METHODS)


def job(name: str, steps: int = 100) -> JobSpec:
    return JobSpec(
        model="m", objective="lm", training_file="file", steps=steps, batch_size=1, eval_every=1, seed=2**40 + 7,
        adapter=AdapterSpec(rank=WIDE.rank, alpha=WIDE.alpha, targets=("x",)), method=METHODS[name].method,
    )  # fmt: skip


def build(name: str, layout: Layout = WIDE, steps: int = 100) -> Method[Any]:
    return recipes.method(job(name, steps), layout)


def pinned_losses(width: int) -> list[list[float]]:
    """Constants of simple binary fractions, one step of them not finite."""
    rows = [[(37 * (step * width + i) % 101) / 64 for i in range(width)] for step in range(PINNED_STEPS)]
    rows[10][0] = math.inf
    return rows


def digest(name: str) -> str:
    method = build(name)
    params, state = replay(method, pinned_losses(method.most))
    vectors = params, *arrays(state), *(probe.params for probe in method.ask(params, state, ()))
    return hashlib.sha256(b"".join(x.tobytes() for x in vectors)).hexdigest()[:16]


def first(method: Method[Any], params, state) -> list[bytes]:
    return [probe.params.tobytes() for probe in method.ask(params, state, ())]


@each
def test_probes_are_finite_vectors_no_two_alike(name):
    method = build(name)
    params, state = method.init()
    asked = method.ask(params, state, ())
    assert all(isinstance(probe, Probe) for probe in asked)
    for x in (params, *(probe.params for probe in asked)):
        assert (x.shape, x.dtype) == ((WIDE.size,), np.float32)
        assert np.isfinite(x).all()
    assert len(set(first(method, params, state))) == len(asked)


@each
def test_a_step_asks_no_more_probes_than_it_is_priced_by(name):
    """The methods here ask as many at every step; one that may ask fewer is priced by the most."""
    method = build(name)
    _, _, journal = run(method, Quadratic(WIDE), 20)
    assert method.most == METHODS[name].method.probes
    assert {len(row) for row in journal} == {method.most}


@each
def test_ask_and_tell_are_pure(name):
    method = build(name)
    params, state, _ = run(method, Quadratic(WIDE), 9)  # the next step is next to a refresh
    for x in (params, *arrays(state)):
        x.setflags(write=False)
    before = (params.tobytes(), repr(state))
    row = measured(np.linspace(0, 1, method.most))
    asked = first(method, params, state)
    told = method.tell(params, state, row)
    assert first(method, params, state) == asked
    again = method.tell(params, state, row)
    assert told[0].tobytes() == again[0].tobytes()
    assert repr(told[1]) == repr(again[1])
    assert (params.tobytes(), repr(state)) == before


@each
def test_replay_is_bitwise_and_may_start_anywhere(name):
    params, state, journal = run(build(name), Quadratic(WIDE), 37)
    again, its_state = replay(build(name), journal)
    assert again.tobytes() == params.tobytes()
    assert repr(its_state) == repr(state)
    middle = replay(build(name), journal[:20])
    for row in journal[20:]:
        middle = build(name).tell(*middle, measured(row))
    assert middle[0].tobytes() == params.tobytes()


@each
def test_its_state_survives_a_snapshot(name, tmp_path):
    params, state, journal = run(build(name), Quadratic(WIDE), 19)
    Snapshots(tmp_path).write("ftjob-a", Point(params, state), Prefix(job(name), journal).hex())
    found = Snapshots(tmp_path).newest("ftjob-a", job(name), journal, type(state))
    assert found is not None
    assert (found.params.tobytes(), repr(found.state)) == (params.tobytes(), repr(state))


def left_as_it_was(method, params, state, row) -> Any:
    """The state after a step that is to change nothing, which is checked."""
    same, after = method.tell(params, state, measured(row))
    assert same.tobytes() == params.tobytes()
    assert [x.tobytes() for x in arrays(after)] == [x.tobytes() for x in arrays(state)]
    assert (after.step, after.skipped) == (state.step + 1, state.skipped + 1)
    return after


@each
def test_a_step_without_finite_losses_only_counts(name):
    method = build(name)
    params, state, _ = run(method, Quadratic(WIDE), 7)
    for bad in (np.nan, np.inf, -np.inf):
        row = [*np.zeros(method.most - 1), bad]
        after = left_as_it_was(method, params, state, row)
        assert (after.step, after.skipped, after.nonfinite) == (8, 1, 1)
    twice = left_as_it_was(method, params, after, row)
    assert (twice.skipped, twice.nonfinite) == (2, 2)
    _, well = method.tell(params, twice, measured(np.ones(method.most)))
    assert (well.step, well.skipped, well.nonfinite) == (10, 2, 0)


@each
def test_finite_losses_of_any_size_lead_to_nothing_that_is_not_finite(name):
    method = build(name)
    params, state = method.init()
    for power in range(0, 300, 5):
        losses = [(-1) ** i * (i + 1) * 10.0**power for i in range(method.most)]
        params, state = method.tell(params, state, measured(losses))
        assert all(np.isfinite(x).all() for x in (params, *arrays(state)))
    assert state.step == 60


@each
def test_descends_a_quadratic(name):
    f = Quadratic(WHOLE)
    params, _, _ = run(build(name, WHOLE, 1500), f, 1500)
    assert f(build(name, WHOLE).init()[0]) == pytest.approx(0.5)
    assert f(params) < REACHED.get(name, 0.1)


@each
def test_separates_what_can_be_separated(name):
    f = Logistic(WHOLE)
    params, _, _ = run(build(name, WHOLE, 800), f, 800)
    assert f(build(name, WHOLE).init()[0]) == pytest.approx(np.log(2))
    assert f(params) < np.log(2) / 2
    assert f.accuracy(params) > 0.8


@each
def test_bits_are_pinned(name):
    assert digest(name) == METHODS[name].digest


def test_bits_are_the_same_in_another_process_without_simd():
    """A fresh interpreter in which numpy dispatches to no optional instruction set."""
    found = np._core._multiarray_umath.__cpu_dispatch__
    program = "from tests.worker.zo import test_conformance as t\nfor n in t.METHODS: print(t.digest(n))"
    environment = {**os.environ, "NPY_DISABLE_CPU_FEATURES": " ".join(found), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program], env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == [case.digest for case in METHODS.values()]
