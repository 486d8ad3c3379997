"""Specs become the methods they name; combinations without meaning are refused by the spec itself."""

import math

import pytest
from pydantic import ValidationError

from db.contract.tokens.base_model import UnknownTarget
from tests.worker.linear import BASE, spec
from worker.runs import recipes
from worker.types import Module
from worker.zo.descent import Descent
from worker.zo.estimators import Signs, Standardised
from worker.zo.methods.adamezo import Recomputed
from worker.zo.methods.eggroll_members import Members
from worker.zo.methods.fzoo import SignSpace
from worker.zo.methods.kerzoo import Kernel
from worker.zo.methods.lozo import WindowSpace
from worker.zo.methods.meazo import Scaled
from worker.zo.methods.mezo import AdapterSpace
from worker.zo.optimizers import Adam, Amsgrad, Momentum, Sgd
from worker.zo.shapes import EVEN


def build(**method) -> Descent:
    job = spec(method=method)
    made = recipes.method(job, recipes.layout(job, BASE))
    assert isinstance(made, Descent)
    return made


def test_layout_is_the_targets_in_model_order():
    layout = recipes.layout(spec(adapter={"rank": 3, "alpha": 6.0, "targets": ("other", "q_proj")}), BASE)
    assert layout.modules == (Module("head.q_proj", 6, 3), Module("other", 4, 4))
    assert (layout.rank, layout.scaling, layout.size) == (3, 2.0, 3 * (6 + 3 + 4 + 4))
    with pytest.raises(UnknownTarget):
        recipes.layout(spec(adapter={"rank": 3, "alpha": 6.0, "targets": ("proj",)}), BASE)


def test_spaces_and_optimizers():
    assert isinstance(build().space, AdapterSpace)
    assert build(name="lozo", window_rank=1).space.refresh == "bank"  # decision 0003
    lozo = build(name="lozo", nu=7, window_rank=1, refresh="recompress")
    assert isinstance(lozo.space, WindowSpace)
    assert (lozo.space.nu, lozo.space.rank, lozo.space.refresh, lozo.space.seed) == (7, 1, "recompress", 1)
    assert build().optimizer == Sgd()
    assert build(optimizer="momentum", momentum=0.8).optimizer == Momentum(0.8)
    assert build(name="lozo", window_rank=1, optimizer="momentum").optimizer == Momentum(0.9, dampening=0.9)
    assert build(optimizer="adam", beta2=0.95).optimizer == Adam(0.9, 0.95)
    assert build(optimizer="amsgrad", beta2=0.95).optimizer == Amsgrad(0.9, 0.95)
    scalar = build(optimizer="scalar", beta2=0.95, a_factor=0.0)
    assert isinstance(scalar, Scaled)
    assert (scalar.beta, scalar.shape.a) == (0.95, 0.0)
    window = build(name="adamezo", momentum=0.8, beta2=0.95, window=3)
    assert isinstance(window, Recomputed)
    assert (window.beta1, window.beta2, window.window) == (0.8, 0.95, 3)


def test_spaces_of_w():
    subzero = build(name="subzero", window_rank=2, nu=9, refresh="freeze")
    assert (subzero.space.rank, subzero.space.nu, subzero.space.refresh, subzero.most) == (2, 9, "freeze", 2)
    muon = build(name="zo_muon", window_rank=3)
    assert (muon.space.rank, muon.space.nu, muon.estimator.kind, muon.most) == (3, 100, "one_sided", 5)
    tezo = build(name="tezo", optimizer="momentum", momentum=0.5)
    assert tezo.optimizer.inner == Momentum(0.5, dampening=0.5)
    assert build(name="tezo", optimizer="adam", beta2=0.95).optimizer.inner == Adam(0.9, 0.95)
    assert build(name="lozo", window_rank=2, scale="rms").space.scale == "rms"
    assert build(name="lozo", window_rank=2).space.scale == "none"


def test_estimators_of_their_own():
    assert build(name="sign", queries=3).estimator == Signs(1e-2, 3)
    assert build(name="fzoo", queries=3).estimator == Standardised("centre", 1e-2, 3, "sample")
    assert build(name="fzoo", deviation="population").estimator == Standardised("centre", 1e-2, 8, "population")
    assert build(name="es", queries=4, a_factor=0).estimator == Standardised("mean", 1e-2, 4)
    assert build(name="kerzoo", queries=4).estimator == Kernel(1e-2, 4, 1)
    members = build(name="eggroll", queries=8, window_rank=2).estimator
    assert members == Standardised("mean", 1e-2 / math.sqrt(2), 8, "population", gain=2.0)
    job = spec(method={"name": "eggroll", "members": "own", "queries": 8, "clip": 2.0})
    own = recipes.method(job, recipes.layout(job, BASE))
    assert isinstance(own, Members)
    assert (own.rank, own.weighing.gain, own.clip, own.most) == (1, math.sqrt(8), 2.0, job.method.probes)
    assert isinstance(build(name="fzoo").space, SignSpace)
    assert build(name="es", a_factor=0).shape != EVEN == build(name="es").shape
    assert build(name="es", optimizer="momentum", momentum=0.8).optimizer == Momentum(0.8)
    assert build(name="eggroll", optimizer="momentum").optimizer == Momentum(0.9, dampening=0.9)


@pytest.mark.parametrize("name", ["sign", "fzoo", "es", "eggroll", "kerzoo"])
def test_their_price_counts_the_probes_that_are_asked(name):
    for queries in ({}, {"queries": 3}):
        made = build(name=name, **queries)
        assert made.most == len(made.ask(*made.init(), ())) == spec(method={"name": name, **queries}).method.probes


def test_settings_arrive():
    made = build(learning_rate=0.25, schedule="linear", warmup_steps=4, clip=2.0, weight_decay=0.5, eps=0.125)
    assert (made.schedule.peak, made.schedule.kind, made.schedule.warmup, made.schedule.steps) == (
        0.25,
        "linear",
        4,
        40,
    )
    assert (made.clip, made.weight_decay, made.estimator.eps) == (2.0, 0.5, 0.125)


@pytest.mark.parametrize("estimator", ["two_point", "one_sided"])
@pytest.mark.parametrize("queries", [1, 5])
def test_the_price_counts_the_probes_that_are_asked(estimator, queries):
    job = spec(method={"estimator": estimator, "queries": queries})
    made = build(estimator=estimator, queries=queries)
    assert made.most == len(made.ask(*made.init(), ())) == job.method.probes


@pytest.mark.parametrize(
    "method, reason",
    [
        ({"name": "lozo", "optimizer": "adam"}, "'sgd' or 'momentum'"),
        ({"name": "lozo", "window_rank": 5}, "must not exceed rank"),
        ({"name": "lozo", "window_rank": 3, "refresh": "recompress"}, "at least 2"),
        ({"warmup_steps": 41}, "must not exceed steps"),
        ({"name": "unheard-of"}, "mezo"),
        ({"estimator": "population"}, "at least 2 queries"),
        ({"name": "fzoo", "queries": 1}, "at least 2 queries"),
        ({"name": "es", "queries": 1}, "at least 2 queries"),
        ({"name": "eggroll", "window_rank": 5}, "must not exceed rank"),
        ({"name": "eggroll", "members": "own", "window_rank": 4}, "a rank above window_rank"),
        ({"name": "eggroll", "members": "own", "queries": 40, "window_rank": 2}, "may have a rank of 64 together"),
        ({"name": "eggroll", "members": "own", "optimizer": "momentum"}, "take sgd alone"),
        ({"name": "eggroll", "members": "own", "refresh": "freeze"}, "share no V"),
    ],
)
def test_what_has_no_meaning_is_refused(method, reason):
    with pytest.raises(ValidationError, match=reason):
        spec(method=method)
