"""Admission without a database and without HTTP: a request and the facts in, a contract or a refusal out."""

from dataclasses import replace

import pytest

from db.contract import admit
from db.contract.acting import Counted, Readings
from db.contract.admit import Admitted, Asked, Examples, Facts, Limits
from db.contract.pricing import Counts, price
from db.contract.refusal import Refusal
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base
from db.contract.tokens.invocation import Tail

SMALL = {"steps": 4, "batch_size": 2, "rank": 2, "eval_rows": 2}


@pytest.fixture
def facts(llama: Base) -> Facts:
    return Facts(
        llama,
        Examples("file-t", "training_file", "choice", 4),
        Examples("file-v", "validation_file", "choice", 2),
        Limits(steps=100, batch_size=8, rank=4, step_tokens=1000),
        seed=11,
    )


def counted(visit: int, rows: int, targets: int = 5, once: int = 0) -> Counted:
    return Counted(Counts([visit] * rows, [once] * rows), targets, Tail((7,)))


PLAIN = (counted(40, 4), counted(40, 2))
LONG = Readings((counted(40, 40),))
ANSWER = (counted(3, 4, once=37), counted(3, 2, once=37))


def decided(facts: Facts, readings: Readings = Readings(PLAIN), **asked: object) -> Admitted | Refusal:
    given = {name: asked.pop(name) for name in ("activation", "text", "places") if name in asked}
    return admit.decide(Asked({**SMALL, **asked}, **given), facts, readings)


def refusal(facts: Facts, **asked: object) -> tuple[str, str]:
    found = decided(facts, **asked)
    assert isinstance(found, Refusal), found
    return found.field, found.code


def test_what_is_admitted_is_priced_to_the_token(facts: Facts):
    found = decided(facts)
    assert isinstance(found, Admitted)
    assert (found.spec.training_file, found.spec.validation_file, found.spec.seed) == ("file-t", "file-v", 11)
    assert found.price == price(found.spec, PLAIN[0].counts, PLAIN[1].counts)
    assert found.invocation is None


def test_a_seed_that_was_asked_for_stays(facts: Facts):
    found = decided(facts, seed=3)
    assert isinstance(found, Admitted)
    assert found.spec.seed == 3


@pytest.mark.parametrize(
    "asked, expected",
    [
        ({"objective": "lm"}, ("onward.objective", "objective_mismatch")),
        ({"nu": 5}, ("onward.nu", "invalid_value")),
        ({"method": "lozo", "window_rank": 3}, ("onward.window_rank", "invalid_value")),
        ({"method": "lozo", "window_rank": 2, "refresh": "recompress"}, ("onward.refresh", "invalid_value")),
        ({"method": "subzero", "window_rank": 3}, ("onward.window_rank", "invalid_value")),
        ({"method": "subzero", "estimator": "population"}, ("onward.queries", "invalid_value")),
        ({"method": "subzero", "optimizer": "sgd"}, ("onward.optimizer", "invalid_value")),
        ({"method": "tezo", "window_rank": 2}, ("onward.window_rank", "invalid_value")),
        ({"method": "zo_muon", "window_rank": 3}, ("onward.window_rank", "invalid_value")),
        ({"method": "zo_muon", "estimator": "two_point"}, ("onward.estimator", "invalid_value")),
        ({"method": "zo_muon", "clip": 1.0}, ("onward.clip", "invalid_value")),
        ({"method": "zo_muon", "eps": 1e-9}, ("onward.eps", "invalid_value")),
        ({"scale": "rms"}, ("onward.scale", "invalid_value")),
        ({"method": "blockwise", "blocks": 5}, ("onward.blocks", "invalid_value")),
        ({"method": "blockwise", "blocks": 0}, ("onward.blocks", "invalid_value")),
        ({"method": "blockwise", "optimizer": "momentum"}, ("onward.optimizer", "invalid_value")),
        (
            {"method": "blockwise", "together": True, "estimator": "population", "queries": 4},
            ("onward.estimator", "invalid_value"),
        ),
        ({"method": "blockwise", "together": True, "blocks": 5, "queries": 64}, ("onward.blocks", "invalid_value")),
        ({"together": True}, ("onward.together", "invalid_value")),
        ({"method": "lezo", "density": 0.24}, ("onward.density", "invalid_value")),
        ({"method": "lezo", "density": 0.0}, ("onward.density", "invalid_value")),
        ({"method": "lezo", "density": 1e-4, "by": "entries"}, ("onward.density", "invalid_value")),
        ({"method": "lezo", "mask_every": 0}, ("onward.mask_every", "invalid_value")),
        ({"method": "sparse_mezo", "density": 1e-4}, ("onward.density", "invalid_value")),
        ({"method": "sparse_mezo", "density": 1.5}, ("onward.density", "invalid_value")),
        ({"method": "dizo", "tau": 1.5}, ("onward.tau", "invalid_value")),
        ({"method": "dizo", "project_pairs": 0}, ("onward.project_pairs", "invalid_value")),
        ({"method": "dizo", "project_eps": 1e-9}, ("onward.project_eps", "invalid_value")),
        ({"tau": 0.1}, ("onward.tau", "invalid_value")),
        ({"method": "svrg", "anchor_rows": 5}, ("onward.anchor_rows", "invalid_value")),
        ({"method": "svrg", "anchor_rows": 0}, ("onward.anchor_rows", "invalid_value")),
        ({"method": "svrg", "anchor_every": 1}, ("onward.anchor_every", "invalid_value")),
        ({"method": "svrg", "anchor_queries": 65}, ("onward.anchor_queries", "invalid_value")),
        ({"method": "svrg", "anchor_factor": 1e5}, ("onward.anchor_factor", "invalid_value")),
        ({"method": "svrg", "learning_rate": 1.0, "anchor_factor": 11.0}, ("onward.anchor_factor", "invalid_value")),
        ({"method": "svrg", "optimizer": "momentum"}, ("onward.optimizer", "invalid_value")),
        ({"anchor_rows": 4}, ("onward.anchor_rows", "invalid_value")),
        ({"density": 0.5}, ("onward.density", "invalid_value")),
        ({"a_factor": 0.0, "a_from": 3}, ("onward.a_from", "invalid_value")),
        ({"a_from": -1}, ("onward.a_from", "invalid_value")),
        ({"a_factor": 1e-9}, ("onward.a_factor", "invalid_value")),
        ({"a_factor": 10.0, "eps": 0.5}, ("onward.a_factor", "invalid_value")),
        ({"warmup_steps": 5}, ("onward.warmup_steps", "invalid_value")),
        ({"eps": 2.0}, ("onward.eps", "invalid_value")),
        ({"eps": 2.0, "places": {"eps": "onward.method.eps"}}, ("onward.method.eps", "invalid_value")),
        ({"method": "hybrid", "top_layers": 2}, ("onward.top_layers", "invalid_value")),
        ({"method": "hybrid", "zo_learning_rate": 10.0, "weight_decay": 0.5},
         ("onward.zo_learning_rate", "invalid_value")),
        ({"method": "first_order", "eps": 1e-3}, ("onward.eps", "invalid_value")),
        ({"method": "first_order", "clip": 1e9}, ("onward.clip", "invalid_value")),
        ({"method": "forward_grad", "queries": 65}, ("onward.queries", "invalid_value")),
        ({"alpha": 1e308}, ("onward.alpha", "invalid_value")),
        ({"eps": 1e-30}, ("onward.eps", "invalid_value")),
        ({"learning_rate_multiplier": 1e-300, "places": {"learning_rate_multiplier": "hyperparameters.lrm"}},
         ("hyperparameters.lrm", "invalid_value")),
        ({"learning_rate": 10.0, "weight_decay": 1.0}, ("onward.weight_decay", "invalid_value")),
        ({"steps": 101}, ("onward.steps", "above_limit")),
        ({"rank": 5}, ("onward.rank", "above_limit")),
        ({"batch_size": 9, "places": {"batch_size": "hyperparameters.batch_size"}},
         ("hyperparameters.batch_size", "above_limit")),
        ({"targets": ["q_proj", "c_attn"]}, ("onward.targets", "unknown_target")),
        ({"token_budget": 10}, ("onward.token_budget", "token_budget_exceeded")),
        ({"text": "Answer:"}, ("onward.invocation", "invalid_value")),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused_at_its_field(facts: Facts, asked, expected):
    assert refusal(replace(facts, derivatives=True), **asked) == expected


WIDE = {"method": "lozo", "refresh": "freeze", "rank": 128, "window_rank": 128}


@pytest.mark.parametrize(
    "asked, most, code, said",
    [
        ({"rank": 65}, 512, "invalid_value", "at most 64 with these settings: only 'lozo' with refresh 'freeze'"),
        ({**WIDE, "refresh": "bank"}, 512, "invalid_value", "at most 64 with these settings"),
        ({**WIDE, "rank": 513}, 512, "invalid_value", "less than or equal to 512"),
        (WIDE, 64, "above_limit", "'onward.rank' is 128: at most 64 here."),
        (WIDE, 512, "above_limit", "Rank 128 is more than"),
        ({"method": "subzero", "rank": 64}, 64, "above_limit", "Rank 64 is more than"),  # the window is as wide
        ({"method": "zo_muon", "rank": 64}, 64, "above_limit", "Rank 64 is more than"),
    ],
)
def test_a_rank_above_what_method_engine_or_module_take_is_refused(facts: Facts, asked, most, code, said):
    limited = replace(facts, limits=replace(facts.limits, rank=most))
    found = admit.early(Asked({**SMALL, **asked}), limited)
    assert isinstance(found, Refusal)
    assert (found.field, found.code) == ("onward.rank", code)
    assert said in found.message


def test_a_wide_rank_is_admitted_where_the_engine_and_the_modules_have_it(facts: Facts):
    base = replace(facts.base, modules=(("model.layers.0.self_attn.q_proj", 512, 512),))
    limited = replace(facts, base=base, limits=replace(facts.limits, rank=512))
    asked = {**SMALL, **WIDE, "rank": 512, "window_rank": 512, "scale": "rms", "targets": ("q_proj",)}
    found = admit.decide(Asked(asked), limited, Readings(PLAIN))
    assert isinstance(found, Admitted), found
    assert (found.spec.adapter.rank, found.spec.adapter.alpha) == (512, 1024.0)


@pytest.mark.parametrize("method", ["subzero", "zo_muon"])
def test_a_window_is_the_whole_rank_unless_asked_otherwise(facts: Facts, method):
    found = decided(facts, method=method)
    assert isinstance(found, Admitted)
    assert getattr(found.spec.method, "window_rank") == SMALL["rank"]  # noqa: B009


@pytest.mark.parametrize(
    "asked, said",
    [
        ({"method": "blockwise", "blocks": 5}, "blocks is 5: at most 4, the modules of the adapter"),
        ({"method": "blockwise", "blocks": 2, "targets": ["layers.1.self_attn.q_proj"]}, "blocks is 2: at most 1"),
        ({"method": "lezo", "density": 0.24}, "density 0.24 of 2 layers is less than half of one"),
        ({"method": "lezo", "density": 1e-4, "by": "entries"}, "leaves a tensor of"),
        ({"method": "svrg", "anchor_rows": 5}, "anchor_rows is 5: at most 4, the rows that are trained on"),
        ({"a_factor": 1e-9, "eps": 1e-2}, "with eps 0.01 A's factor may be 0, 1 or 0.0001 to 100"),
    ],
)
def test_what_does_not_go_with_the_adapter_s_modules_is_said(facts: Facts, asked, said):
    found = decided(facts, **asked)
    assert isinstance(found, Refusal)
    assert said in found.message


@pytest.mark.parametrize(
    "asked",
    [
        {"method": "blockwise", "blocks": 4},
        {"method": "blockwise", "blocks": 4, "together": True, "queries": 2},
        {"method": "lezo", "density": 0.25},
        {"method": "lezo", "density": 0.25, "by": "entries"},
        {"method": "sparse_mezo"},
        {"method": "dizo"},
        {"a_factor": 0.5, "a_from": 3},
    ],
)
def test_what_goes_with_them_is_admitted_and_priced_by_the_most(facts: Facts, asked):
    found = decided(replace(facts, limits=replace(facts.limits, step_tokens=10_000)), **asked)
    assert isinstance(found, Admitted), found
    assert found.price == price(found.spec, PLAIN[0].counts, PLAIN[1].counts)
    asks = {"dizo": 2 + 2 * 10, "blockwise": 2 * 2 * 4 if asked.get("together") else 2}
    assert found.spec.method.probes == asks.get(found.spec.method.name, 2)


def test_anchor_rows_are_of_those_trained_on(facts: Facts):
    """Rows held out are not among them; what was not asked for is no more than there are."""
    alone = replace(facts, validation=None, limits=replace(facts.limits, step_tokens=10_000))
    asked = {"method": "svrg", "held_out": 1, "readings": Readings(PLAIN[:1])}
    found = decided(alone, **asked)
    assert isinstance(found, Admitted), found
    assert found.spec.method.anchor_rows == 3
    assert isinstance(decided(alone, anchor_rows=3, **asked), Admitted)
    assert refusal(alone, anchor_rows=4, **asked) == ("onward.anchor_rows", "invalid_value")


def test_a_refresh_above_the_limit_of_a_step_is_refused_where_it_was_asked_for_and_narrowed_where_not(facts: Facts):
    limited = replace(facts, limits=replace(facts.limits, step_tokens=500))  # 3 rows of 40 tokens, 4 probes each
    found = decided(limited, method="svrg")
    assert isinstance(found, Admitted), found
    assert found.spec.method.anchor_rows == 3
    assert refusal(limited, method="svrg", anchor_rows=4) == ("onward.anchor_rows", "above_limit")
    said = decided(limited, method="svrg", anchor_rows=4)
    assert said.message.startswith("One step may take 640 scored tokens (4 probes of 4 rows): at most 500 here.")
    assert "anchor_rows 3 would fit" in said.message


def test_what_no_row_decides_is_refused_before_a_row_is_read(facts: Facts):
    for activation in ("all", "answer", "auto"):
        early = admit.early(Asked({**SMALL, "eps": 2.0}, activation=activation), facts)
        assert isinstance(early, Refusal)
        assert early.field == "onward.eps"
        assert admit.early(Asked(SMALL, activation=activation), facts) is None


def test_files_of_two_objectives_are_refused_at_the_second(facts: Facts):
    other = replace(facts, validation=Examples("file-v", "validation_file", "chat", 2))
    assert refusal(other) == ("validation_file", "objective_mismatch")


def test_eval_rows_need_a_file_or_rows_held_out(facts: Facts):
    alone = replace(facts, validation=None)
    assert refusal(alone) == ("onward.eval_rows", "invalid_value")
    assert refusal(alone, held_out=4) == ("onward.held_out", "invalid_value")  # all four
    assert refusal(alone, held_out=-1) == ("onward.held_out", "invalid_value")
    assert refusal(facts, held_out=1) == ("onward.held_out", "invalid_value")  # beside a validation file
    found = decided(alone, held_out=2)
    assert isinstance(found, Admitted)
    assert (found.spec.held_out, found.spec.eval_rows, found.spec.validation_file) == (2, 2, None)


def test_what_is_held_out_or_repeated_is_told(facts: Facts):
    alone = replace(facts, training=replace(facts.training, rows=40, repeated=3), validation=None)
    said = decided(alone, LONG, held_out=4)
    assert isinstance(said, Admitted)
    assert said.spec.held_out == 4
    assert (said.told["rows"], said.told["repeated_rows"]) == (40, 3)
    assert [(r.level, r.message.split(" are ")[0].split(" repeat ")[0]) for r in said.remarks] == [
        ("info", "4 of 40 rows"), ("warn", "3 of 40 rows"),
    ]  # fmt: skip
    plain = decided(facts)
    assert isinstance(plain, Admitted)
    assert (plain.remarks, plain.told["repeated_rows"]) == ((), None)


def test_limits_take_any_rows_for_those_held_out_so_that_no_seed_decides(facts: Facts):
    long = Readings((Counted(Counts([10] * 39 + [90], [0] * 40), 5, Tail((7,))),))
    alone = replace(
        facts,
        training=replace(facts.training, rows=40),
        validation=None,
        limits=replace(facts.limits, step_tokens=99),
    )
    for seed in range(30):  # in some the long row is trained on, in others it is measured on
        found = admit.decide(Asked({**SMALL, "held_out": 4, "seed": seed}), alone, long)
        assert isinstance(found, Refusal)
        assert "line 40 takes most" in found.message
    wide = replace(alone, limits=replace(alone.limits, step_tokens=190))
    asked = {"steps": 4, "rank": 2, "batch_size": 1, "held_out": 4}
    kept = {admit.decide(Asked({**asked, "seed": s}), wide, long).spec.eval_rows for s in range(30)}
    assert kept == {4}


def test_a_row_that_cannot_be_is_told_of_its_file(facts: Facts):
    bad = Refusal("validation_file", "Line 2: too long", "invalid_file_format")
    assert decided(facts, Readings((PLAIN[0], bad))) == bad
    assert decided(facts, Readings(PLAIN, (7,), (ANSWER[0], bad)), activation="answer") == bad


def test_answer_acts_from_its_invocation_on_or_says_why_not(facts: Facts):
    found = decided(facts, Readings(PLAIN, (7,), ANSWER), activation="answer", text=":")
    assert isinstance(found, Admitted)
    assert (found.spec.adapter.invocation, found.invocation) == ((7,), ":")
    none = Refusal("onward.invocation", "There is no invocation.", "no_invocation")
    assert decided(facts, Readings(PLAIN, none), activation="answer") == none


@pytest.mark.parametrize(
    "readings, activation",
    [
        (Readings(PLAIN, (7,), ANSWER), "answer"),
        (Readings(PLAIN, (7,), (counted(11, 4), counted(3, 2))), "all"),  # not a quarter
        (Readings(PLAIN, (7,), (counted(3, 4, targets=4), ANSWER[1])), "all"),  # something to learn would be dropped
        (Readings(PLAIN, (7,), (ANSWER[0], Refusal("validation_file", "Line 1: no"))), "all"),
        (Readings(PLAIN, Refusal("onward.invocation", "No.")), "all"),
    ],
)
def test_auto_is_answer_where_all_rows_allow_it_and_it_is_worth_it(facts: Facts, readings, activation):
    found = decided(facts, readings, activation="auto")
    assert isinstance(found, Admitted)
    assert found.spec.adapter.activation == activation


def test_a_step_that_takes_too_much_is_refused_with_what_would_fit(facts: Facts):
    tight = replace(facts, limits=replace(facts.limits, step_tokens=100))
    found = decided(tight, batch_size=2)
    assert isinstance(found, Refusal)
    assert (found.field, found.code) == ("onward.batch_size", "above_limit")
    assert found.message == (
        "One step may take 160 scored tokens (2 probes of 2 rows): at most 100 here. batch_size 1 would fit."
    )
    assert refusal(tight, batch_size=1, queries=2) == ("onward.queries", "above_limit")
    assert refusal(replace(tight, limits=replace(tight.limits, step_tokens=79)), batch_size=1) == (
        "training_file", "above_limit",
    )  # fmt: skip
    alone = decided(tight, batch_size=1, eval_rows=2)
    assert isinstance(alone, Admitted)
    tighter = replace(tight, limits=replace(tight.limits, step_tokens=80))
    assert decided(tighter, batch_size=1, eval_rows=2) == alone
    wide = Readings((PLAIN[0], counted(60, 2)))
    assert isinstance(decided(tight, wide, batch_size=1, eval_rows=2), Refusal)


def test_what_is_auto_takes_what_fits(facts: Facts):
    """A preset means 16 rows a step and 200 an evaluation; nobody asked for so many."""
    forty = replace(facts.training, rows=40)
    roomy = replace(facts, training=forty, limits=replace(facts.limits, batch_size=64, step_tokens=250))
    asked = Asked({"steps": 4, "rank": 2})
    found = admit.decide(asked, roomy, Readings((counted(40, 40), counted(40, 40))))
    assert isinstance(found, Admitted)
    assert (found.spec.batch_size, found.spec.eval_rows) == (3, 2)
    roomy = replace(roomy, validation=replace(facts.files[1], rows=40), limits=replace(roomy.limits, step_tokens=400))
    found = admit.decide(asked, roomy, Readings((counted(40, 40), counted(40, 40))))
    assert isinstance(found, Admitted)
    assert (found.spec.batch_size, found.spec.eval_rows) == (5, 10)
    epochs = admit.decide(Asked({"n_epochs": 2, "rank": 2}), roomy, Readings((counted(40, 40), counted(40, 40))))
    assert isinstance(epochs, Admitted)
    assert (epochs.spec.batch_size, epochs.spec.steps) == (5, 16)


def test_a_method_that_needs_derivatives_is_refused_where_none_are(facts: Facts):
    for method in ({"method": "first_order"}, {"method": "hybrid", "top_layers": 1}, {"method": "forward_grad"}):
        assert refusal(facts, **method) == ("onward.method", "no_derivatives")
        there = replace(facts, derivatives=True)
        assert isinstance(decided(there, **method), Admitted)
        quantised = replace(there, base=replace(facts.base, quantised=True))
        assert refusal(quantised, **method) == ("onward.method", "no_derivatives")


@pytest.mark.parametrize("autograd, method", [(False, "mezo"), (True, "first_order")])
def test_a_request_that_names_no_method_is_told_which_and_why(facts: Facts, autograd: bool, method: str):
    chat = Examples("file-t", "training_file", "chat", 4)
    found = decided(
        replace(facts, training=chat, validation=None, derivatives=autograd), Readings(PLAIN[:1]), eval_rows=0
    )
    assert isinstance(found, Admitted)
    assert found.spec.method.name == method
    assert found.told["chosen"]["method"] == method
    assert "not measured" in found.told["chosen"]["why"]


def test_a_method_that_was_named_was_not_chosen(facts: Facts):
    found = decided(facts, method="mezo")
    assert isinstance(found, Admitted)
    assert found.chosen is None
    assert "chosen" not in found.told


@pytest.mark.parametrize("method", ["mezo", "lozo", "fzoo", "hizoo", "zo_muon"])
def test_a_probe_below_the_noise_of_a_workers_dtype_is_refused(facts: Facts, method: str):
    coarse = replace(facts, dtypes=frozenset({"float32", "bfloat16"}))
    found = decided(coarse, method=method, eps=1e-2)
    assert isinstance(found, Refusal)
    assert (found.field, found.code) == ("onward.eps", "invalid_value")
    assert "at least 0.03 where a worker computes in bfloat16" in found.message
    assert isinstance(decided(facts, method=method, eps=1e-2), Admitted)
    assert isinstance(decided(coarse, method=method, eps=3e-2), Admitted)


def test_a_presets_probe_is_as_large_as_a_workers_dtype_wants_it(facts: Facts):
    fine, coarse = (
        decided(replace(facts, dtypes=frozenset({dtype})), method="mezo") for dtype in ("float32", "bfloat16")
    )
    assert isinstance(fine, Admitted)
    assert isinstance(coarse, Admitted)
    assert (fine.spec.method.eps, coarse.spec.method.eps) == (1e-2, 3e-2)


def test_what_reads_no_difference_of_losses_takes_any_dtype(facts: Facts):
    coarse = replace(facts, dtypes=frozenset({"bfloat16"}), derivatives=True)
    assert isinstance(decided(coarse, method="first_order"), Admitted)
    # Its worker has the torch scorer.
    assert isinstance(decided(coarse, method="hybrid", eps=1e-2, top_layers=1), Admitted)


def test_an_adapter_may_act_on_the_last_layers_alone(facts: Facts):
    found, whole = decided(facts, layers="last:1"), decided(facts)
    assert isinstance(found, Admitted)
    assert isinstance(whole, Admitted)
    assert (found.spec.adapter.layers, found.spec.adapter.depth) == ((1,), "last:1")
    assert "layers" not in whole.spec.adapter.model_dump(), "a spec that says nothing of them has the digest it had"
    assert JobSpec.model_validate(found.spec.model_dump(mode="json")) == found.spec
    both = decided(facts, layers="last:2")
    assert isinstance(both, Admitted)
    modules = [facts.base.select(of.spec.adapter.targets, of.spec.adapter.layers) for of in (whole, both, found)]
    assert modules[0] == modules[1]
    assert modules[2] == tuple(m for m in modules[0] if ".1." in m[0])


def test_more_layers_than_there_are_are_refused(facts: Facts):
    assert refusal(facts, layers="last:3") == ("onward.layers", "above_limit")
    assert refusal(facts, layers="last:1", targets=["model.layers.0.self_attn.q_proj"]) == (
        "onward.targets",
        "unknown_target",
    )
