"""`onward methods`: every method is there, in words, with what was measured or that nothing was."""

import json

import pytest
from typer.testing import CliRunner

from cli import methods as page
from cli.main import app
from db.contract import methods
from db.contract.choosing import Kind
from db.contract.evidence import Evidence
from db.contract.methods.base import About, Preset

KIND = Kind("smollm2-135m", "choice", "answer")


def printed(*arguments: str) -> str:
    found = CliRunner().invoke(app, ["methods", *arguments])
    assert found.exit_code == 0, found.output
    return found.output


@pytest.mark.parametrize("name", methods.ARMS)
def test_every_method_says_what_it_is_and_is_printed(name):
    about = methods.ARMS[name].about
    assert isinstance(about, About)
    assert all((about.formula, about.forwards, about.state, about.use, about.source, about.needs))
    line = next(line for line in printed().splitlines() if line.split() and line.split()[0] == name)
    for part in (about.formula, about.forwards, about.use):
        assert part in line
    assert ("torch worker" in line) == methods.ARMS[name].autograd


def test_as_json_there_is_one_object_a_method():
    found = json.loads(printed("--json"))
    assert [one["name"] for one in found] == list(methods.ARMS)
    assert all(one["replay"] == methods.ARMS[one["name"]].replay for one in found)


def test_times_are_the_evidence_beside_first_order_and_else_not_measured(monkeypatch):
    lines = [
        Evidence("smollm2*", "choice", "answer", name, Preset(steps=1), 0.6, seconds, 0.7, 0.01, 3, autograd)
        for name, seconds, autograd in (("mezo", 66.0, False), ("first_order", 4.5, True))
    ]
    monkeypatch.setattr(page, "EVIDENCE", lines)
    mezo, lozo = page.about("mezo", KIND), page.about("lozo", KIND)
    assert (mezo["seconds"], mezo["reference_seconds"], mezo["target"]) == (66.0, 4.5, 0.6)
    assert lozo["seconds"] is None
    rows = {line.split()[0]: line for line in printed().splitlines() if line.split()}
    assert "66 s" in rows["mezo"]
    assert "4.5 s" in rows["mezo"]
    assert "not measured" in rows["lozo"]
    assert "4.5 s" not in printed("--activation", "all")


@pytest.mark.parametrize("name", methods.ARMS)
def test_a_method_alone_prints_its_settings_and_presets(name):
    text, arm = printed(name), methods.ARMS[name]
    for setting in arm.model_fields:
        assert setting in text
    for preset in arm.presets:
        assert str(preset.preset.steps) in text
    found = json.loads(printed(name, "--json"))
    assert {one["setting"] for one in found["settings"]} == set(arm.model_fields) - {"name"}
    assert len(found["presets"]) == len(arm.presets)


def test_bounds_are_said():
    said = {one["setting"]: one for one in page.settings(methods.ARMS["mezo"])}
    assert said["eps"] == {"setting": "eps", "default": None, "required": True, "bounds": "float, 1e-06 to 1"}
    assert said["queries"]["bounds"] == "int, >= 1, <= 64"
    assert said["optimizer"]["bounds"] == "sgd | momentum | adam | amsgrad | scalar"


def test_an_unknown_method_is_told_of_those_there_are():
    found = CliRunner().invoke(app, ["methods", "mezzo"])
    assert found.exit_code == 1
