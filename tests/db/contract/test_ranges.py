"""What admission lets through can be computed with: every product of a step in float32, and a probe's in float16."""

import json
import math
from pathlib import Path

import annotated_types as bounds
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract import methods, ranges
from db.contract.methods import base
from db.contract.profiles import needed
from db.contract.spec import AdapterSpec, JobSpec, stored
from db.contract.tokens.base_model import Base
from worker.runs import recipes
from worker.zo import noise
from worker.zo.method import finite, measured
from worker.zo.noise import Place, Stream

OWN = {"mezo": {}, "lozo": {"name": "lozo"}}
FLOATS = ("eps", "momentum", "beta2", "learning_rate", "clip")
HALF = float(np.finfo(np.float16).max)


def spec(adapter: dict[str, object] | None = None, steps: int = 1_000_000, **method: object) -> JobSpec:
    about = {"name": "mezo", "learning_rate": 1e-3, **method}
    if "eps" in methods.ARMS[str(about["name"])].model_fields:
        about = {"eps": 1e-2, **about}
    if needed(str(about["name"])):
        about = {"profile": "0" * 64, **about}
    return JobSpec(
        model="tiny-llama", objective="choice", training_file="file-1",
        steps=steps, batch_size=1, eval_every=10, seed=3,
        adapter=AdapterSpec(**{"rank": 2, "alpha": 4.0, "targets": ("q_proj", "v_proj"), **(adapter or {})}),
        method=methods.settings(**about),
    )  # fmt: skip


def within(name: str) -> st.SearchStrategy[float]:
    """All of the range, its ends often."""
    low, high = methods.ARMS["mezo"].ranges[name]
    return st.sampled_from([low, high]) | st.floats(low, high, exclude_min=low == 0, exclude_max=False)


@st.composite
def computable(draw: st.DrawFn) -> JobSpec:
    """Specs inside the ranges, the corners of which are as likely as their middle."""
    rank = draw(st.sampled_from([1, 2, 8]))
    ends = [end * rank for end in ranges.SCALING]
    alpha = draw(st.sampled_from(ends) | st.floats(*ends))
    values = {name: draw(within(name)) for name in FLOATS}
    most = min(1.0, ranges.MOST_DECAY / values["learning_rate"])
    values["weight_decay"] = draw(st.sampled_from([0.0, most]) | st.floats(0, most))
    values["optimizer"] = draw(st.sampled_from(["sgd", "momentum", "adam", "amsgrad", "scalar"]))
    least, most = (end / values["eps"] for end in base.A_RADIUS)
    factor = draw(st.sampled_from([0.0, 1.0, least, min(most, 10)]) | st.floats(least, min(most, 10)))
    values |= {"a_factor": factor, "a_from": draw(st.sampled_from([0, 2])) if factor else 0}
    kind = draw(st.sampled_from(["mezo", "lozo", "blockwise", "lezo", "sparse_mezo"]))
    if kind in ("blockwise", "lezo", "sparse_mezo"):
        values |= {"name": kind, "optimizer": "sgd"}
        values |= {"blocks": 3} if kind == "blockwise" else {"density": draw(st.sampled_from([0.5, 1.0]))}
        values |= {"by": draw(st.sampled_from(["layers", "entries"]))} if kind == "lezo" else {}
    if kind == "lozo":
        del values["a_factor"], values["a_from"]
        values |= {"name": "lozo", "window_rank": 1, "nu": draw(st.integers(1, 3))}
        values["optimizer"] = draw(st.sampled_from(["sgd", "momentum"]))
        values["refresh"] = draw(st.sampled_from(["bank", "freeze", *(["recompress"] if rank > 1 else [])]))
    values |= {"estimator": draw(st.sampled_from(["two_point", "one_sided"])), "queries": draw(st.integers(1, 3))}
    return spec({"rank": rank, "alpha": alpha}, **values)


@given(job=computable(), apart=st.sampled_from([0.0, 1e-30, 1.0, 3e38]))
def test_within_the_ranges_every_product_of_a_step_is_finite(tiny_bases: dict[str, Base], job: JobSpec, apart: float):
    assert list(ranges.unfit(job)) == []
    layout = recipes.layout(job, tiny_bases["llama"])
    method = recipes.method(job, layout)
    scaling = np.float32(layout.scaling)
    assert 0 < scaling < np.inf
    # The Jacobi rotations of `recompress` are in float64, where an infinite cotangent means a tangent of 0.
    loud = "ignore" if getattr(job.method, "refresh", "") == "recompress" else "raise"
    with np.errstate(over=loud, invalid="raise", divide="raise"):
        params, state = method.init()
        for step in range(4):
            probes = method.ask(params, state, ())
            if step == 0:  # what later ones hold depends on what was measured
                for probe in probes:
                    assert finite(probe.params.astype(np.float16))
                    for _, a, b in layout.pairs(probe.params):
                        assert np.abs(scaling * np.outer(np.abs(b).max(1), np.abs(a).max(0))).max() < HALF
            losses = [apart if i % 2 else 0.0 for i in range(len(probes))]
            params, state = method.tell(params, state, measured(losses))
            assert (state.skipped, finite(params, *state.buffers)) == (0, True)
    # A clipped entry cannot leave float32 in a million steps, whatever it hears.
    clip, beta = job.method.clip, job.method.momentum
    assert clip is not None
    slope = clip * ranges.NOISE / ranges.SCALING[0]
    assert job.method.learning_rate * slope / (1 - beta) * 1e6 < np.finfo(np.float32).max
    assert slope * slope / (1 - np.float32(beta)) < np.finfo(np.float32).max
    assert np.float32(beta) < 1
    assert np.float32(job.method.beta2) < 1


@given(job=computable())
def test_the_smallest_move_of_a_probe_is_a_move(tiny_bases: dict[str, Base], job: JobSpec):
    """A radius below float32's spacing would score the same adapter twice, and divide nothing by nearly nothing."""
    layout = recipes.layout(job, tiny_bases["llama"])
    method = recipes.method(job, layout)
    params, state = method.init()
    probe = method.ask(params, state, ())[-1].params
    entered, state = method.space.enter(params, state)
    z = method.direction(entered, state, job.method.queries - 1)
    assert ((probe != entered) == (z != 0)).all()


SPACES = [
    {"name": "subzero", "window_rank": 1, "nu": 1},
    {"name": "tezo", "optimizer": "adam"},
    {"name": "zo_muon", "window_rank": 1, "nu": 1, "queries": 2},
]


@pytest.mark.parametrize("method", SPACES, ids=lambda method: method["name"])
@pytest.mark.parametrize("scaling", ranges.SCALING)
@pytest.mark.parametrize("eps", [1e-6, 1.0])
def test_spaces_of_w_stay_finite_at_the_ends_of_the_ranges(tiny_bases: dict[str, Base], method, scaling, eps):
    """A probe in float16, its products too; the moves in float32. An entry of an orthonormal frame is bounded by 1 and
    mostly far below, so for SubZero this is what tiny modules show, not a bound for all."""
    clip = {} if method["name"] == "zo_muon" else {"clip": 1e6}
    job = spec({"rank": 2, "alpha": 2 * scaling}, **{**method, **clip, "eps": eps, "learning_rate": 10.0})
    assert list(ranges.unfit(job)) == []
    layout = recipes.layout(job, tiny_bases["llama"])
    made = recipes.method(job, layout)
    params, state = made.init()
    with np.errstate(over="raise", invalid="raise", divide="raise"):
        for step in range(3):
            probes = made.ask(params, state, ())
            if step == 0:
                for probe in probes:
                    assert finite(probe.params.astype(np.float16))
                    for _, a, b in layout.pairs(probe.params):
                        assert (
                            np.abs(np.float32(layout.scaling) * np.outer(np.abs(b).max(1), np.abs(a).max(0))).max()
                            < HALF
                        )
            params, state = made.tell(params, state, measured([1e3 * (i % 2) for i in range(len(probes))]))
            assert (state.skipped, finite(params, *state.buffers)) == (0, True)


OUTSIDE = [
    ({"alpha": 1e308, "rank": 1}, {}, "alpha", "alpha 0.00195312 to 512 with rank 1; it is 1e+308"),
    ({"alpha": 5e-324}, {}, "alpha", "alpha 0.00390625 to 1024 with rank 2"),
    ({"alpha": math.nextafter(1024, math.inf)}, {}, "alpha", "alpha / rank may be 0.00195312 to 512"),
    ({}, {"eps": 1e-30}, "eps", "eps is 1e-30: from 1e-06 to 1 "),
    ({}, {"learning_rate": 1e-300}, "learning_rate", "from 1e-09 to 10"),
    ({}, {"clip": 1e300}, "clip", "from 1e-06 to 1e+06"),
    ({}, {"clip": 5e-324}, "clip", "from 1e-06"),
    ({}, {"momentum": math.nextafter(1, 0)}, "momentum", "to 0.99999 "),
    ({}, {"beta2": math.nextafter(1, 0)}, "beta2", "to 0.999999 "),
    ({}, {"learning_rate": 10.0, "weight_decay": 0.2}, "weight_decay", "with learning_rate 10 at most 0.1"),
    ({}, {"name": "lozo", "nu": 10**30}, "nu", "from 1 to 1e\\+06"),
    ({}, {"name": "subzero", "window_rank": 2, "nu": 10**30}, "nu", "from 1 to 1e\\+06"),
    ({}, {"name": "zo_muon", "window_rank": 2, "eps": 1e-30}, "eps", "from 1e-06 to 1 "),
]


@pytest.mark.parametrize("adapter, method, field, said", OUTSIDE)
def test_outside_of_them_a_number_is_unfit_and_its_range_is_said(adapter, method, field, said):
    (rule,) = ranges.unfit(spec(adapter, **method))
    assert rule.field == field
    assert said.replace("\\", "") in rule.reason


def test_a_row_of_an_earlier_release_is_read_whatever_its_numbers():
    for adapter, method, _, _ in OUTSIDE:
        job = spec(adapter, **method)
        assert stored(job.model_dump(mode="json")) == job
    kept = json.loads((Path(__file__).parents[2] / "upgrade" / "specs-0.1.json").read_text())
    assert kept
    assert not [rule for row in kept for rule in ranges.unfit(stored(row["spec"]))]


def test_no_number_of_a_method_is_without_a_range():
    for name, arm in methods.ARMS.items():
        for field, about in arm.model_fields.items():
            if about.annotation not in (int, float, float | None, int | None) and field != "clip":
                continue
            kinds = [type(bound) for bound in about.metadata]
            closed = {bounds.Lt, bounds.Le} & set(kinds) and {bounds.Gt, bounds.Ge} & set(kinds)
            ruled = field == "warmup_steps"  # at most `steps`
            assert closed or ruled or field in arm.ranges, f"{name}.{field}"


def test_every_preset_is_within_them():
    for arm in methods.ARMS.values():
        for line in arm.presets:
            adapter = {"rank": line.preset.rank, "alpha": line.preset.alpha}
            about = {"name": arm.model_fields["name"].default, **arm.suited(line.preset.rank), **line.preset.settings}
            assert list(ranges.unfit(spec(adapter, line.preset.steps, **about))) == []


def test_noise_is_as_large_as_ranges_take_it_to_be():
    assert ranges.NOISE == 32 * 0.25  # all 64 bits of a word set
    drawn = noise.normal(Place(1, Stream.PROBE, 0), 1 << 16)
    assert np.abs(drawn).max() <= ranges.NOISE
    assert np.abs(drawn[drawn != 0]).min() == 0.25
