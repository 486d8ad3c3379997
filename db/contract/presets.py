"""What `auto` means: a method's preset for base model, objective and activation. Knows no method by name."""

from collections.abc import Mapping
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import Any, Final

from db.contract import held_out, methods
from db.contract.evidence import EVIDENCE
from db.contract.methods.base import SCALING, Line, Preset
from db.contract.objectives import training
from db.contract.rows.formats import Format
from db.contract.spec import AdapterSpec
from db.contract.tokens.base_model import Base

ADAPTER: Final = tuple(AdapterSpec.model_fields)
ACTING: Final = ("activation", "invocation", "layers")  # of them, those that a preset says in another way or not at all
SHAPE: Final = ("steps", "batch_size", "repeat", "eval_every", "eval_rows")  # fields of a run that presets have
# and those that only a tenant can give
OWN: Final = ("token_budget", "suffix", "seed", "parent", "on_divergence", "max_restarts", "patience")
MULTIPLIERS: Final = ("n_epochs", "learning_rate_multiplier")  # OpenAI's: in terms of the rows and of the preset


def preset(model: str, objective: str, method: str, activation: str = "all") -> Preset:
    """The first line of the method's that matches. Raises ValueError where none does, or the method is unknown."""
    for line in lines(method) if method in methods.ARMS else ():
        alike = fnmatchcase(model.lower(), line.model) and fnmatchcase(objective, line.objective)
        if alike and line.activation == activation:
            return line.preset
    raise ValueError(f"there is no preset for objective {objective!r} with method {method!r}")


def lines(method: str) -> tuple[Line, ...]:
    """A method's presets: first those that the study has chosen."""
    own = (one for one in EVIDENCE if one.method == method)
    measured = (Line(one.model, one.objective, one.activation, one.preset) for one in own)
    return (*measured, *methods.ARMS[method].presets)


def resolve(asked: Mapping[str, Any], base: Base, format: Format, rows: int, valid_rows: int = 0) -> dict[str, Any]:
    """Completes a request: the fields of JobSpec beside model, files and what is not asked for.

    `asked` is flat: "objective", "method" (its name), the fields of AdapterSpec and of any method's settings, steps,
    batch_size, repeat, eval_every, eval_rows, held_out, seed, token_budget, suffix, parent, on_divergence ("stop" where
    something is evaluated), max_restarts, patience, and OpenAI's n_epochs (visits of a row, `repeat` times each) and
    learning_rate_multiplier. A field that is missing, None or "auto" takes the preset, with no more rows a batch than
    are trained on, and no more steps than visit each of them as often as the preset lets; `activation` is then "all",
    for what "answer" needs (the ids `invocation`) is in the rows, which are not read here. `rows` and `valid_rows`
    count the files' rows. The result nests adapter and method as JobSpec does, with every setting that was asked for,
    also one that the method has not; seed, token_budget, suffix, parent, max_restarts and patience are in it only where
    asked for.
    `layers` is `last:k` or "all"; where it and `targets` are missing, what the preset has, else all.
    Raises ValueError for an unknown field or method, for an objective that the file's format cannot train, and for more
    layers than the base has.
    """
    given = {key: value for key, value in asked.items() if value is not None and value != "auto"}
    if unknown := sorted(given.keys() - set(fields())):
        raise ValueError(f"unknown field {unknown[0]!r}")
    objective, method = _objective(given, format), given.get("method", methods.DEFAULT)
    activation = given.get("activation", "all")
    held = held_out.count(given, rows, valid_rows)
    found = _shaped(preset(base.name, objective, method, activation), given, max(1, rows - held))
    evaluated = min(found.eval_rows, valid_rows or held)
    return {
        "objective": objective,
        "adapter": _adapter(given, found, activation, base),
        "method": _settings(method, given, found, max(1, rows - held)),
        **{key: getattr(found, key) for key in SHAPE},
        "eval_rows": evaluated,
        "held_out": held,
        "on_divergence": "stop" if evaluated else "continue",
        **{key: given[key] for key in OWN if key in given},
    }


def _adapter(given: Mapping[str, Any], found: Preset, activation: str, base: Base) -> dict[str, Any]:
    shape = {"rank": found.rank, "alpha": found.alpha, "targets": tuple(found.targets)}
    acts = {"activation": activation, "invocation": tuple(given.get("invocation", ()))}
    own = 0 if "targets" in given else found.last  # who says where an adapter acts has all of that
    layers = last(given["layers"], base) if "layers" in given else _least(own, base)
    return shape | acts | ({"layers": layers} if layers else {})


def last(layers: str, base: Base) -> tuple[int, ...]:
    """The numbers of the layers that `last:k` says, none where it says "all". Raises ValueError where the base has
    fewer."""
    count = counted(layers)
    if count > base.depth:
        raise ValueError(f"{base.name} has {base.depth} layers")
    return tuple(range(base.depth - count, base.depth)) if count else ()


def counted(layers: str) -> int:
    """k of `last:k`, 0 of "all"."""
    return 0 if layers == "all" else int(layers.removeprefix("last:"))


def _least(count: int, base: Base) -> tuple[int, ...]:
    """A preset's last layers; none, for all, where the base has no more."""
    return tuple(range(base.depth - count, base.depth)) if 0 < count < base.depth else ()


def _objective(given: Mapping[str, Any], format: Format) -> str:
    able = [objective.name for objective in training(format)]
    objective: str = given.get("objective", able[0])
    if objective not in able:
        raise ValueError(
            f"objective {objective!r} cannot train {format} rows: they take {' or '.join(map(repr, able))}"
        )
    return objective


def _shaped(found: Preset, given: Mapping[str, Any], rows: int) -> Preset:
    """The preset with the shape of adapter and run that was asked for, and for as many `rows` to train on."""
    found = replace(found, batch_size=min(found.batch_size, rows))
    found = replace(found, **{key: given[key] for key in (*ADAPTER, *SHAPE) if key in given and key not in ACTING})
    if "rank" in given and "alpha" not in given:  # the same scaling whatever the rank: rates carry over
        found = replace(found, alpha=SCALING * found.rank)
    if "steps" not in given:
        epochs = -(-int(given.get("n_epochs", found.epochs)) * rows // found.batch_size) * found.repeat
        found = replace(found, steps=epochs if "n_epochs" in given else min(found.steps, epochs))
    return found


def _settings(method: str, given: Mapping[str, Any], found: Preset, rows: int) -> dict[str, Any]:
    """The preset's, what suits its rank and the rows trained on, and over them what was asked for."""
    own = {field: given[field] for field in methods.FIELDS if field in given}
    settings = {"name": method, **found.settings, **methods.ARMS[method].suited(found.rank, rows), **own}
    if "learning_rate_multiplier" in given and "learning_rate" not in given:
        settings["learning_rate"] *= given["learning_rate_multiplier"]
    return settings


def fields() -> tuple[str, ...]:
    """Every field that `resolve` takes."""
    return ("objective", "method", *ADAPTER, *methods.FIELDS, *SHAPE, "held_out", *OWN, *MULTIPLIERS)
