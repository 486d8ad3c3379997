"""OpenAI's hyperparameters: what was sent, what it came to, and "auto" only while nothing is known."""

import pytest

from api.jobs.figures import epochs, hyperparameters
from db.contract import methods
from db.contract.presets import preset
from tests.db.inserted import a_spec

AUTO = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": "auto"}
RATE = preset("tiny", "lm", "mezo").settings["learning_rate"]


@pytest.mark.parametrize(
    "request_, spec, rows, found",
    [
        ({}, None, 10, AUTO),
        ({"hyperparameters": {"n_epochs": 3, "batch_size": "auto"}}, None, 10, AUTO | {"n_epochs": 3}),
        ({}, {}, 10, {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 1.0}),
        ({}, {"repeat": 4}, 10, {"n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 1.0}),
        ({}, {}, 1000, {"n_epochs": 1, "batch_size": 2, "learning_rate_multiplier": 1.0}),
        ({"method": {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 7}}}}, {}, 10,
         {"n_epochs": 7, "batch_size": 2, "learning_rate_multiplier": 1.0}),
        ({"hyperparameters": {"learning_rate_multiplier": 0.5}}, {}, 10,
         {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 0.5}),
        ({"onward": {"learning_rate": 2 * RATE}}, {"rate": 2 * RATE}, 10,
         {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 2.0}),
        ({"onward": {"method": {"name": "mezo", "learning_rate": RATE / 8}}}, {"rate": RATE / 8}, 10,
         {"n_epochs": 2, "batch_size": 2, "learning_rate_multiplier": 0.125}),
        ({"hyperparameters": {"batch_size": "auto"}}, {}, None,
         {"n_epochs": "auto", "batch_size": 2, "learning_rate_multiplier": 1.0}),
    ],
)  # fmt: skip
def test_figures(request_, spec, rows, found):
    if spec is not None:
        rate = spec.pop("rate", 1e-3)
        spec = a_spec("file-a", method=methods.settings(name="mezo", eps=1e-3, learning_rate=rate), **spec)
    assert hyperparameters(request_, spec, rows) == found


def test_epochs_are_exact_beside_the_whole_number():
    assert epochs(a_spec("file-a"), 8) == 2.5
    assert epochs(a_spec("file-a"), 0) is None
