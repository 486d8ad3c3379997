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
from db.contract.methods.base import MethodSettings
from db.contract.spec import AdapterSpec, JobSpec
from tests.profiled import KINDS, made, sha256
from tests.worker.zo.problems import WHOLE, WIDE, Logistic, Quadratic, arrays, replay, run
from worker.adapters.snapshots import Prefix, Snapshots
from worker.runs import recipes
from worker.runs.replay import Point
from worker.types import Layout, Module
from worker.zo.method import Method, Probe, measured

PINNED_STEPS = 37


class Case(NamedTuple):
    digest: str
    method: MethodSettings


def case(digest: str, name: str, learning_rate: float, **settings: object) -> Case:
    own = {"nu": 8, "window_rank": 2} if name == "lozo" else {}
    if "eps" in methods.ARMS[name].model_fields:
        own["eps"] = 1e-3
    if name in KINDS:
        own["profile"] = sha256(made(KINDS[name], WIDE))
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
    "sign": case("7b46453b3c72a6eb", "sign", 0.01, queries=4, schedule="linear"),
    "fzoo": case("4ee8c5b1b565b5ef", "fzoo", 0.02, schedule="linear"),
    "fzoo population deviation, B alone": case(
        "0bcecd43f1bd7b4b", "fzoo", 0.02, deviation="population", queries=4, a_factor=0
    ),
    "es": case("3fa67ee562e42712", "es", 0.02, queries=16, schedule="linear"),
    "eggroll": case("b9ba9fd06edbb79b", "eggroll", 0.01, queries=16, nu=8, schedule="linear"),
    "eggroll freeze": case(
        "4f7468dca1ded684", "eggroll", 0.01, queries=4, refresh="freeze", window_rank=8, schedule="linear"
    ),
    "eggroll own": case("a09d78d252e470e3", "eggroll", 0.01, queries=16, members="own", schedule="linear"),
    "eggroll own, rank 2, decay": case(
        "3e1a5f6b1b506778",
        "eggroll",
        0.01,
        queries=5,
        members="own",
        window_rank=2,
        clip=1.5,
        weight_decay=0.01,
        schedule="linear",
    ),
    "kerzoo": case("db828ec48036040d", "kerzoo", 0.003, queries=4),
    "kerzoo clip, B alone": case(
        "f734f4725346f895", "kerzoo", 0.01, clip=3.0, queries=4, a_factor=0, weight_decay=0.01
    ),
    "forward-grad": case("be0cd83571f19c31", "forward_grad", 0.005),
    "forward-grad, adam, B alone": case(
        "e62feb4fa2d1fb8a", "forward_grad", 0.01, queries=3, optimizer="adam", a_factor=0, clip=3.0
    ),
    "mezo, A later": case("af3bcb7890f9f635", "mezo", 0.005, a_factor=0.5, a_from=20, weight_decay=0.01),
    "blockwise": case("95cd3ed52e0ce20f", "blockwise", 0.005, blocks=1),  # MeZO's, to the bit
    "blockwise together": case(
        "1caf954ea8804c5e", "blockwise", 0.005, blocks=1, together=True, queries=2, a_factor=0.5
    ),
    "lezo entries": case("b2d021c6c61efaed", "lezo", 0.01, by="entries", density=0.5, mask_every=3),
    "sparse_mezo": case("d688b703cacd7c52", "sparse_mezo", 0.01, density=0.5, mask_every=8, queries=2),
    "dizo": case(
        "b067ac7887160614",
        "dizo",
        0.005,
        optimizer="momentum",
        momentum=0.5,
        project_every=1,
        project_pairs=2,
        project_rate=0.5,
    ),
    "lozo-m": case("1688c0b122a97115", "lozo", 0.006, optimizer="momentum", weight_decay=0.01),
    "lozo freeze, rms": case("5714ba925fbac4e9", "lozo", 0.02, refresh="freeze", window_rank=8, scale="rms"),
    "subzero": case("2754f88388118b23", "subzero", 0.01, nu=8, window_rank=4),
    "subzero freeze, population, decay": case(
        "c31501c8459d89e2",
        "subzero",
        0.01,
        nu=8,
        window_rank=6,
        refresh="freeze",
        estimator="population",
        queries=6,
        weight_decay=0.01,
    ),
    "tezo momentum, one-sided": case(
        "78286a906f3546ce", "tezo", 4e-5, optimizer="momentum", estimator="one_sided", queries=2
    ),
    "tezo adam": case("385fc375f1468812", "tezo", 5e-4, optimizer="adam", schedule="linear"),
    "zo-muon": case(
        "44c4d7387622bc55", "zo_muon", 0.02, queries=2, nu=8, window_rank=4, schedule="linear", weight_decay=0.01
    ),
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
    "svrg": case("bea4a83a5a9ec1fb", "svrg", 0.003, anchor_every=4, anchor_rows=7),
    "svrg, B more, decay": case(
        "c868b5d7b08d19a2", "svrg", 0.002, anchor_every=3, a_factor=0.5, clip=3.0, weight_decay=0.01, anchor_factor=2.0
    ),
    "senszoq, adam": case("d3839daa1d82a4f5", "senszoq", 0.01, optimizer="adam", schedule="cosine"),
    "activation basis": case("7c2929a3bf120bb0", "activation_basis", 0.003, weight_decay=0.01),
    "zo-finetuner": case("cfef032dad46a95f", "zo_finetuner", 0.005, queries=2),
    "random search": case("e202fc53473d1ae1", "random_search", 0.2, candidates=5, schedule="linear"),
}
# Losses of the quadratic that are less than 0.1 are not to be had by trying places at random.
REACHED = {"random search": 0.45}
each = pytest.mark.parametrize("name", METHODS)


def profile(name: str, layout: Layout) -> bytes | None:
    """The profile of an adapter of this layout, for a method that reads one. A mask without a fifth of B's entries
    leaves most of an update within reach."""
    kind = KINDS.get(METHODS[name].method.name)
    return None if kind is None else made(kind, layout, share=0.8)


def job(name: str, steps: int = 100, layout: Layout = WIDE) -> JobSpec:
    method, file = METHODS[name].method, profile(name, layout)
    if file is not None:
        method = method.model_copy(update={"profile": sha256(file)})
    return JobSpec(
        model="m", objective="lm", training_file="file", steps=steps, batch_size=1, eval_every=1, seed=2**40 + 7,
        adapter=AdapterSpec(rank=WIDE.rank, alpha=WIDE.alpha, targets=("x",)), method=method,
    )  # fmt: skip


def build(name: str, layout: Layout = WIDE, steps: int = 100) -> Method[Any]:
    return recipes.method(job(name, steps, layout), layout, profile=profile(name, layout))


def whole(name: str) -> Layout:
    """A layout in which the method reaches every update: most move B and need all of A's inputs, ZO-Muon moves A and
    needs all of B's outputs, TeZO has one number a rank and needs many."""
    match METHODS[name].method.name:
        case "tezo":
            return Layout(256, WHOLE.alpha, WHOLE.modules)
        case "zo_muon":
            return Layout(WHOLE.rank, WHOLE.alpha, tuple(Module(m.name, m.outputs, m.inputs) for m in WHOLE.modules))
        case _:
            return WHOLE


def pinned_losses(width: int) -> list[list[float]]:
    """Constants of simple binary fractions, one step of them not finite. A loss and its slope are priced as two probes,
    so there are as many numbers as `most`, whichever they are."""
    rows = [[(37 * (step * width + i) % 101) / 64 for i in range(width)] for step in range(PINNED_STEPS)]
    rows[10][0] = math.inf
    return rows


def digest(name: str) -> str:
    method = build(name)
    params, state = replay(method, pinned_losses(method.most))
    asked = [x for probe in method.ask(params, state, ()) for x in (probe.params, probe.tangent) if x is not None]
    vectors = params, *arrays(state), *asked
    return hashlib.sha256(b"".join(x.tobytes() for x in vectors)).hexdigest()[:16]


def first(method: Method[Any], params, state) -> list[bytes]:
    asked = method.ask(params, state, ())
    return [probe.params.tobytes() + (b"" if probe.tangent is None else probe.tangent.tobytes()) for probe in asked]


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
    row = measured(np.linspace(0, 1, method.most), method.numbers)
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
        middle = build(name).tell(*middle, measured(row, build(name).numbers))
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
    same, after = method.tell(params, state, measured(row, method.numbers))
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
    _, well = method.tell(params, twice, measured(np.ones(method.most), method.numbers))
    assert (well.step, well.skipped, well.nonfinite) == (10, 2, 0)


@each
def test_finite_losses_of_any_size_lead_to_nothing_that_is_not_finite(name):
    method = build(name)
    params, state = method.init()
    for power in range(0, 300, 5):
        losses = [(-1) ** i * (i + 1) * 10.0**power for i in range(method.most)]
        params, state = method.tell(params, state, measured(losses, method.numbers))
        assert all(np.isfinite(x).all() for x in (params, *arrays(state)))
    assert state.step == 60


@each
def test_descends_a_quadratic(name):
    layout = whole(name)
    f = Quadratic(layout)
    params, _, _ = run(build(name, layout, 1500), f, 1500)
    assert f(build(name, layout).init()[0]) == pytest.approx(0.5)
    assert f(params) < REACHED.get(name, 0.1)


@each
def test_separates_what_can_be_separated(name):
    layout = whole(name)
    f = Logistic(layout)
    params, _, _ = run(build(name, layout, 800), f, 800)
    assert f(build(name, layout).init()[0]) == pytest.approx(np.log(2))
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
