"""MeZO's settings and presets. Its arithmetic is in `worker/zo/methods/mezo.py`."""

from typing import ClassVar, Literal

from db.contract.methods.base import About, AdapterSettings, Line, Preset

# The demo's two tasks, chosen on 2 cores for ten minutes of training (bench/NOTES.md, "The demo's preset").
SMOLLM2 = Preset(
    steps=200,
    batch_size=8,
    eval_every=50,
    targets=("v_proj", "o_proj"),
    settings={"eps": 1e-2, "learning_rate": 2.5e-3, "schedule": "linear", "clip": 5.0},
)
# First match wins, after what the study has chosen (`db.contract.evidence`). Unknown models: MeZO's LoRA grid has eps
# 1e-2 (arXiv 2305.17333, appendix D); steps and rates are not measured.
PRESETS = (
    Line("smollm2*", "choice", "all", SMOLLM2),
    Line("*", "choice", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
    Line("*", "choice", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 2e-3})),
    Line("*", "*", "all", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 5e-4})),
    Line("*", "*", "answer", Preset(steps=1000, settings={"eps": 1e-2, "learning_rate": 1e-3})),
)


class Mezo(AdapterSettings):
    """MeZO (arXiv 2305.17333) on every entry of A and B. `scalar` divides by one second moment of all entries (MEAZO,
    arXiv 2605.03869), with `beta2` and no momentum."""

    presets: ClassVar[tuple[Line, ...]] = PRESETS
    about: ClassVar[About] = About(
        formula="g = mean c z; c = (L+ - L-) / 2 eps",
        forwards="2q; one_sided q + 1; population q",
        state="-; momentum 1 vector, adam 2, amsgrad 3, scalar 1 number",
        use="the measure of all others",
        source="arXiv 2305.17333",
    )
    name: Literal["mezo"] = "mezo"
    optimizer: Literal["sgd", "momentum", "adam", "amsgrad", "scalar"] = "sgd"
