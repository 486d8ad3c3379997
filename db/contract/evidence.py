"""What the study measured of each method; `python -m bench.study --presets` writes it from the JSON."""

from typing import Final

from db.contract.methods.base import Evidence, Preset

__all__ = ["EVIDENCE", "Evidence"]

# The study's best line of each method; of one kind of job the least seconds come first.
EVIDENCE: Final[tuple[Evidence, ...]] = (
    Evidence(
        model="smollm2*",
        objective="choice",
        activation="answer",
        method="first_order",
        preset=Preset(
            steps=24,
            batch_size=8,
            repeat=4,
            eval_every=4,
            rank=8,
            alpha=16.0,
            targets=("v_proj", "o_proj"),
            settings={
                "learning_rate": 0.002,
                "schedule": "linear",
            },
        ),
        target=0.641,
        seconds=7.9,
        accuracy=0.774,
        spread=0.068,
        seeds=3,
        autograd=True,
    ),
    Evidence(
        model="smollm2*",
        objective="choice",
        activation="answer",
        method="es",
        preset=Preset(
            steps=40,
            batch_size=4,
            repeat=4,
            eval_every=10,
            rank=8,
            alpha=16.0,
            targets=("v_proj", "o_proj"),
            settings={
                "learning_rate": 0.3,
                "schedule": "linear",
                "queries": 16,
                "eps": 0.01,
                "a_factor": 0.0,
            },
        ),
        target=0.641,
        seconds=16.2,
        accuracy=0.721,
        spread=0.051,
        seeds=3,
        autograd=False,
    ),
    Evidence(
        model="smollm2*",
        objective="choice",
        activation="answer",
        method="mezo",
        preset=Preset(
            steps=30,
            batch_size=2,
            repeat=1,
            eval_every=10,
            rank=8,
            alpha=16.0,
            targets=("v_proj", "o_proj"),
            settings={
                "learning_rate": 0.3,
                "schedule": "linear",
                "estimator": "population",
                "queries": 16,
                "eps": 0.01,
                "clip": 5.0,
                "a_factor": 0.0,
            },
        ),
        target=0.641,
        seconds=None,
        accuracy=0.688,
        spread=0.022,
        seeds=2,
        autograd=False,
    ),
)
