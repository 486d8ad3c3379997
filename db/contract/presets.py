"""What `auto` means: defaults by base model, objective and method. Knows numbers, not how they are used."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import Any

from db.contract.rows.files import OBJECTIVES, Format
from db.contract.spec import Activation, AdapterSpec, MethodSpec
from db.contract.tokens.base_model import Base

ADAPTER = tuple(AdapterSpec.model_fields)
METHOD = tuple(name for name in MethodSpec.model_fields if name != "name")
RUN = ("steps", "batch_size", "repeat", "eval_every", "eval_rows", "token_budget", "suffix", "seed")
MULTIPLIERS = ("n_epochs", "learning_rate_multiplier")  # OpenAI's words: in terms of the rows and of the preset
ACTING = ("activation", "invocation")  # fields of AdapterSpec that no preset has
SCALING = 2.0  # alpha / rank, of every preset
ATTENTION = ("q_proj", "v_proj")  # in every supported architecture


@dataclass(frozen=True)
class Preset:
    """Values for one kind of job. `method` holds fields of MethodSpec beside its name."""

    steps: int
    batch_size: int = 16
    repeat: int = 1
    eval_every: int = 50
    eval_rows: int = 200
    rank: int = 8
    alpha: float = 8 * SCALING
    targets: tuple[str, ...] = ATTENTION
    method: Mapping[str, Any] = field(default_factory=dict)


# The demo's two tasks, chosen on 2 cores for ten minutes of training (bench/NOTES.md, "The demo's preset").
SMOLLM2 = Preset(
    steps=200,
    batch_size=8,
    eval_every=50,
    targets=("v_proj", "o_proj"),
    method={"eps": 1e-2, "learning_rate": 2.5e-3, "schedule": "linear", "clip": 5.0},
)

# bench/NOTES.md, "Activation answer": 6e-3 learned a little faster, 8e-3 diverged on one of the two tasks.
SMOLLM2_ANSWER = replace(SMOLLM2, repeat=4, method={**SMOLLM2.method, "learning_rate": 5e-3})

# First match wins: (model name pattern, objective, method, activation). Every line says where its numbers come from.
TABLE: tuple[tuple[str, str, str, Activation, Preset], ...] = (
    ("smollm2*", "choice", "mezo", "all", SMOLLM2),
    ("smollm2*", "choice", "mezo", "answer", SMOLLM2_ANSWER),
    # LOZO: bench/results/lozo_refresh.json, on one layer only; three rates were tried.
    ("smollm2*", "choice", "lozo", "all", Preset(steps=600, method={"eps": 1e-3, "learning_rate": 3e-4})),
    ("smollm2*", "choice", "lozo", "answer", Preset(steps=600, method={"eps": 1e-3, "learning_rate": 6e-4})),
    # Unknown models: MeZO's LoRA grid has eps 1e-2 (arXiv 2305.17333, appendix D); steps and rates are not measured.
    ("*", "choice", "mezo", "all", Preset(steps=1000, method={"eps": 1e-2, "learning_rate": 1e-3})),
    ("*", "choice", "mezo", "answer", Preset(steps=1000, method={"eps": 1e-2, "learning_rate": 2e-3})),
    ("*", "choice", "lozo", "all", Preset(steps=1000, method={"eps": 1e-3, "learning_rate": 1e-4})),
    ("*", "choice", "lozo", "answer", Preset(steps=1000, method={"eps": 1e-3, "learning_rate": 2e-4})),
    ("*", "lm", "mezo", "all", Preset(steps=1000, method={"eps": 1e-2, "learning_rate": 5e-4})),
    ("*", "lm", "mezo", "answer", Preset(steps=1000, method={"eps": 1e-2, "learning_rate": 1e-3})),
    ("*", "lm", "lozo", "all", Preset(steps=1000, method={"eps": 1e-3, "learning_rate": 1e-4})),
    ("*", "lm", "lozo", "answer", Preset(steps=1000, method={"eps": 1e-3, "learning_rate": 2e-4})),
)


def preset(model: str, objective: str, method: str, activation: str = "all") -> Preset:
    """The first line of the table that matches. Raises ValueError where none does."""
    for pattern, *kind, found in TABLE:
        if fnmatchcase(model.lower(), pattern) and kind == [objective, method, activation]:
            return found
    raise ValueError(f"there is no preset for objective {objective!r} with method {method!r}")


def resolve(asked: Mapping[str, Any], base: Base, format: Format, rows: int, valid_rows: int = 0) -> dict[str, Any]:
    """Completes a request: the fields of JobSpec beside model, files and what is not asked for.

    `asked` is flat: "objective", "method" (its name), the fields of AdapterSpec and MethodSpec, steps, batch_size,
    repeat, eval_every, eval_rows, seed, token_budget, suffix, and OpenAI's n_epochs (visits of a row, `repeat` times
    each) and learning_rate_multiplier. A field that is missing, None or "auto" takes the preset; `activation` is then
    "all", for what "answer" needs (the ids `invocation`) is in the rows, which are not read here. `rows` and
    `valid_rows` count the files' rows. The result nests adapter and method as JobSpec does; seed, token_budget and
    suffix are in it only where asked for.
    Raises ValueError for an unknown field, and for an objective that the file's format cannot train.
    """
    given = {key: value for key, value in asked.items() if value is not None and value != "auto"}
    known = {"objective", "method", *ADAPTER, *METHOD, *RUN, *MULTIPLIERS}
    if unknown := sorted(given.keys() - known):
        raise ValueError(f"unknown field {unknown[0]!r}")
    objective, method = given.get("objective", OBJECTIVES[format]), given.get("method", "mezo")
    if objective != OBJECTIVES[format]:
        raise ValueError(f"objective {objective!r} cannot train {format} rows: they take {OBJECTIVES[format]!r}")
    activation = given.get("activation", "all")
    found = preset(base.name, objective, method, activation)
    found = replace(found, **{key: given[key] for key in (*ADAPTER, *RUN[:5]) if key in given and key not in ACTING})
    if "rank" in given and "alpha" not in given:  # the same scaling whatever the rank: rates carry over
        found = replace(found, alpha=SCALING * found.rank)
    rates = {**found.method, **{key: given[key] for key in METHOD if key in given}}
    if method == "lozo" and "window_rank" not in given:
        rates["window_rank"] = min(found.rank, MethodSpec.model_fields["window_rank"].default)
    if "learning_rate_multiplier" in given and "learning_rate" not in given:
        rates["learning_rate"] *= given["learning_rate_multiplier"]
    if "n_epochs" in given and "steps" not in given:
        found = replace(found, steps=-(-int(given["n_epochs"]) * rows // found.batch_size) * found.repeat)
    return {
        "objective": objective,
        "adapter": {
            "rank": found.rank,
            "alpha": found.alpha,
            "targets": tuple(found.targets),
            "activation": activation,
            "invocation": tuple(given.get("invocation", ())),
        },
        "method": {"name": method, **rates},
        "steps": found.steps,
        "batch_size": found.batch_size,
        "repeat": found.repeat,
        "eval_every": found.eval_every,
        "eval_rows": min(found.eval_rows, valid_rows),
        **{key: given[key] for key in RUN[5:] if key in given},
    }


def fields() -> tuple[str, ...]:
    """Every field that `resolve` takes."""
    return ("objective", "method", *ADAPTER, *METHOD, *RUN, *MULTIPLIERS)
