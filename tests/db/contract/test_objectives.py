"""Objectives as values: every format has one, and what a record says is what spec and presets take."""

import pytest

from db.contract.objectives import OBJECTIVES, training
from db.contract.rows.formats import FORMATS
from db.contract.spec import JobSpec
from tests.db.inserted import a_spec


@pytest.mark.parametrize("format", FORMATS)
def test_every_format_can_train_something(format):
    assert training(format)
    assert all(format in objective.formats for objective in training(format))


def test_names_are_keys_and_formats_exist():
    for name, objective in OBJECTIVES.items():
        assert objective.name == name
        assert set(objective.formats) <= set(FORMATS)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_spec_takes_every_objective_and_no_other(name):
    values = a_spec("file-1").model_dump()
    assert JobSpec(**{**values, "objective": name}).objective == name
    with pytest.raises(ValueError, match="the objective should be 'lm' or 'choice'"):
        JobSpec(**{**values, "objective": name + "s"})
