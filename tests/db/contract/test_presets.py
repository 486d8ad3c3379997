"""`auto` becomes numbers, what was asked for stays, and every result is a spec."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.contract import methods, presets
from db.contract.methods.base import Line, Preset
from db.contract.methods.mezo import Mezo
from db.contract.objectives import OBJECTIVES
from db.contract.presets import fields, resolve
from db.contract.profiles import needed
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import Base


def _asked(method: str) -> dict[str, object]:
    """A job that names this method and, where it reads one, a profile."""
    return {"method": method} | ({"profile": "0" * 64} if needed(method) else {})


def _spec(resolved: dict[str, object]) -> JobSpec:
    return JobSpec(**{"model": "m", "training_file": "file-1", "seed": 0, **resolved})


@pytest.mark.parametrize("method", methods.ARMS)
@pytest.mark.parametrize("format, objective", [("choice", "choice"), ("completion", "lm"), ("chat", "lm")])
def test_every_format_and_method_has_a_preset_for_every_model(base: Base, method, format, objective):
    spec = _spec(resolve({**_asked(method), "objective": "auto"}, base, format, rows=100, valid_rows=50))
    assert (spec.objective, spec.method.name, spec.eval_rows) == (objective, method, 50)
    assert base.select(spec.adapter.targets)


OWN = {"learning_rate": 1e-3, "eps": 1e-3}
LINES = [(method, line) for method in methods.ARMS for line in presets.lines(method)]


@pytest.mark.parametrize("method, line", LINES)
def test_every_line_of_a_method_is_reachable_and_a_spec(llama: Base, method: str, line: Line):
    name, found = line.model.replace("*", "x"), line.preset
    objective = "lm" if line.objective == "*" else line.objective
    assert presets.preset(name, objective, method, line.activation) is found
    named = Base(**{**{f: getattr(llama, f) for f in Base.__dataclass_fields__}, "name": name})
    answer = line.activation == "answer"
    asked = _asked(method) | ({"activation": "answer", "invocation": [5, 6]} if answer else {})
    spec = _spec(resolve(asked, named, OBJECTIVES[objective].formats[0], rows=1000, valid_rows=1000))
    assert (spec.adapter.activation, spec.adapter.invocation) == (line.activation, (5, 6) * answer)
    assert (spec.steps, spec.batch_size, spec.eval_rows) == (found.steps, found.batch_size, found.eval_rows)
    assert (spec.adapter.rank, spec.adapter.alpha, spec.adapter.targets) == (found.rank, found.alpha, found.targets)
    assert len(spec.adapter.layers) == (found.last if found.last < named.depth else 0)
    assert spec.method.model_dump().items() >= dict(found.settings).items()


@pytest.mark.parametrize("method", methods.ARMS)
@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("activation", ["all", "answer"])
def test_every_method_has_a_preset_for_every_objective_on_any_model(method, objective, activation):
    assert presets.preset("unheard-of", objective, method, activation)


@pytest.mark.parametrize(
    "asked, layers",
    [
        ({}, (1,)),
        ({"layers": "auto"}, (1,)),
        ({"layers": "all"}, ()),
        ({"layers": "last:2"}, (0, 1)),
        ({"targets": ("v_proj",)}, ()),  # who says where it acts has all of that
        ({"targets": ("v_proj",), "layers": "last:1"}, (1,)),
    ],
)
def test_a_preset_may_leave_the_first_layers_alone(llama: Base, monkeypatch, asked, layers):
    monkeypatch.setattr(presets, "preset", lambda *_: Preset(steps=5, last=1, settings=OWN))
    assert _spec(resolve({"method": "mezo", **asked}, llama, "choice", rows=10)).adapter.layers == layers
    monkeypatch.setattr(presets, "preset", lambda *_: Preset(steps=5, last=3, settings=OWN))
    whole = _spec(resolve({"method": "mezo"}, llama, "choice", rows=10)).adapter
    assert whole.layers == (), "of a base with two layers the last three are all"


def test_a_model_with_a_line_of_its_own_takes_it():
    assert presets.preset("SmolLM2-135M", "choice", "mezo") is not presets.preset("other", "choice", "mezo")


def test_without_a_word_about_activation_an_adapter_acts_on_all_tokens(llama: Base):
    for asked in ({}, {"activation": "auto"}, {"activation": None, "invocation": None}, {"activation": "all"}):
        found = resolve(asked, llama, "choice", rows=5)
        assert (found["adapter"]["activation"], found["adapter"]["invocation"]) == ("all", ())
        assert JobSpec(**{"model": "m", "training_file": "file-1", "seed": 0, **found})


def test_an_answer_takes_its_own_preset_and_what_is_asked_for_stays(llama: Base):
    acting = {"activation": "answer", "invocation": (7,)}
    own = presets.preset(llama.name, "choice", "mezo", "answer")
    assert own is not presets.preset(llama.name, "choice", "mezo", "all")
    found = resolve(acting, llama, "choice", rows=5)
    assert found["method"]["learning_rate"] == own.settings["learning_rate"]
    assert resolve({**acting, "rank": 4, "learning_rate": 1e-4}, llama, "choice", rows=5)["adapter"] == {
        "rank": 4, "alpha": 8.0, "targets": own.targets, "activation": "answer", "invocation": (7,),
    }  # fmt: skip


ASKED = {
    "rank": st.integers(1, 64),
    "alpha": st.floats(0.5, 64),
    "targets": st.sampled_from([["q_proj"], ["v_proj", "k_proj"]]),
    "estimator": st.sampled_from(["two_point", "one_sided"]),
    "queries": st.integers(1, 8),
    "eps": st.floats(1e-5, 1),
    "learning_rate": st.floats(1e-6, 1),
    "optimizer": st.sampled_from(["sgd", "momentum", "adam"]),
    "schedule": st.sampled_from(["constant", "linear", "cosine"]),
    "clip": st.floats(0.1, 10),
    "steps": st.integers(1, 1000),
    "batch_size": st.integers(1, 64),
    "eval_every": st.integers(1, 100),
    "eval_rows": st.integers(0, 30),
    "seed": st.integers(0, 2**63 - 1),
    "token_budget": st.integers(1, 10**9),
    "suffix": st.text(max_size=5),
}


@given(asked=st.fixed_dictionaries({}, optional={k: v | st.just("auto") | st.none() for k, v in ASKED.items()}))
def test_what_is_asked_for_stays(tiny_bases, asked: dict[str, object]):
    spec = _spec(resolve(asked, tiny_bases["opt"], "choice", rows=100, valid_rows=30))
    flat = {**spec.model_dump(), **spec.adapter.model_dump(), **spec.method.model_dump()}
    for key, value in asked.items():
        if value not in (None, "auto"):
            assert flat[key] == (tuple(value) if key == "targets" else value), key
    plain = _spec(resolve({}, tiny_bases["opt"], "choice", rows=100, valid_rows=30))
    for part in (AdapterSpec, Mezo):
        for key in part.model_fields:
            if key == "alpha" and asked.get("alpha") in (None, "auto"):
                assert spec.adapter.alpha == 2 * spec.adapter.rank  # the preset's scaling at any rank
            elif asked.get(key) in (None, "auto"):
                mine, theirs = (s.adapter if part is AdapterSpec else s.method for s in (spec, plain))
                assert getattr(mine, key) == getattr(theirs, key)


@pytest.mark.parametrize("rank, window", [(1, 1), (8, 2)])
def test_a_lozo_window_fits_a_small_rank(llama: Base, rank: int, window: int):
    found = resolve({"method": "lozo", "rank": rank}, llama, "choice", rows=5)
    assert found["method"]["window_rank"] == window


def test_openai_words(llama: Base):
    plain = resolve({}, llama, "choice", rows=100)
    asked = {"n_epochs": 3, "batch_size": 16, "learning_rate_multiplier": 0.5}
    found = resolve(asked, llama, "choice", rows=100)
    assert found["steps"] == 17  # 3 times the 90 rows that are not held out, in batches of 16, rounded up
    assert resolve({**asked, "held_out": 0}, llama, "choice", rows=100)["steps"] == 19
    assert found["method"]["learning_rate"] == pytest.approx(0.5 * plain["method"]["learning_rate"])
    # Onward's own words are more exact and win.
    assert resolve({**asked, "steps": 7, "learning_rate": 1e-4}, llama, "choice", rows=100)["steps"] == 7
    own = resolve({**asked, "learning_rate": 1e-4}, llama, "choice", rows=100)
    assert own["method"]["learning_rate"] == 1e-4


def test_a_tenth_of_the_rows_is_held_out_where_there_is_no_validation_file(llama: Base):
    def held(rows: int, valid_rows: int = 0, **asked: object) -> tuple[int, int]:
        found = resolve(asked, llama, "choice", rows, valid_rows)
        return found["held_out"], found["eval_rows"]

    assert [held(rows)[0] for rows in (1, 10, 49, 50, 59, 60, 1999, 2000, 10**6)] == [0, 0, 0, 5, 5, 6, 199, 200, 200]
    assert held(100, valid_rows=7) == (0, 7)
    assert held(100, eval_rows=0) == held(100, held_out=0) == (0, 0)
    assert held(100, eval_rows=4) == (10, 4)
    assert held(100, held_out=30) == (30, 30)
    assert held(9, held_out=4, eval_rows=9) == (4, 4)


@pytest.mark.parametrize("method", methods.ARMS)
@pytest.mark.parametrize("rows", [1, 9, 10, 40, 99, 5000])
def test_defaults_of_a_small_file_are_no_wider_than_its_rows_and_visit_each_as_often_as_the_preset_lets(
    llama, method, rows
):
    found = resolve({"method": method}, llama, "chat", rows)
    trained, preset = rows - found["held_out"], presets.preset(llama.name, "lm", method)
    assert found["batch_size"] == min(preset.batch_size, trained)
    assert found["steps"] == min(preset.steps, -(-preset.epochs * trained // found["batch_size"]))
    asked = resolve({"method": method, "batch_size": 64, "steps": 7000}, llama, "chat", rows)
    assert (asked["batch_size"], asked["steps"]) == (64, 7000)  # said, so meant


def test_without_validation_rows_nothing_is_evaluated(llama: Base):
    assert resolve({"eval_rows": 10}, llama, "choice", rows=5)["eval_rows"] == 0
    assert resolve({"eval_rows": 10}, llama, "choice", rows=5, valid_rows=4)["eval_rows"] == 4


@pytest.mark.parametrize(
    "asked, reason",
    [
        ({"rnak": 8}, "unknown field 'rnak'"),
        ({"name": "mezo"}, "unknown field 'name'"),
        ({"objective": "lm"}, "objective 'lm' cannot train choice rows: they take 'choice'"),
        ({"method": "adamw"}, "no preset for objective 'choice' with method 'adamw'"),
    ],
)
def test_what_cannot_be_resolved_raises(llama: Base, asked, reason):
    with pytest.raises(ValueError, match=reason):
        resolve(asked, llama, "choice", rows=5)


def test_fields_are_what_resolve_takes(llama: Base):
    assert set(fields()) >= ASKED.keys()
    resolve(dict.fromkeys(fields()), llama, "choice", rows=5)
