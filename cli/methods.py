"""`onward methods`: what each method is, and what the study measured of it. Knows no service: the contract alone."""

from collections.abc import Iterable
from typing import Annotated, Any, Literal, get_args, get_origin

import typer

from cli import show
from cli.client import Failure
from db.contract import methods as contract
from db.contract.choosing import Kind
from db.contract.evidence import EVIDENCE, Evidence
from db.contract.methods.base import Line, MethodSettings
from db.contract.objectives import OBJECTIVES

REFERENCE = "first_order"
NOT_MEASURED, NOT_REACHED = "not measured", "not reached"
BOUNDS = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}


def methods(
    name: Annotated[str | None, typer.Argument(metavar="METHOD", help="One, with its settings and presets.")] = None,
    model: Annotated[str, typer.Option(help="Base model of the times.")] = "smollm2-135m",
    objective: Annotated[str, typer.Option(help=" or ".join(OBJECTIVES) + ".")] = "choice",
    activation: Annotated[str, typer.Option(help="all or answer.")] = "answer",
    as_json: show.Json = False,
) -> None:
    """Every method: its formula, forward passes a step, state, replay, needs, use, and measured time beside first-order
    LoRA's."""
    if name is not None and name not in contract.ARMS:
        raise Failure(f"there is no method {name!r}", f"one of: {', '.join(contract.ARMS)}")
    kind = Kind(model, objective, activation)
    if name is not None:
        return _one(name, kind, as_json)
    found = [about(each, kind) for each in contract.ARMS]
    if as_json:
        return show.as_json(found)
    target = next((one["target"] for one in found if one["target"] is not None), None)
    show.table(
        ["method", "formula", "forwards", "state", "replay", "needs", "use", "time", REFERENCE],
        ([show.text(str(value)) for value in _row(one)] for one in found),
        empty="there are no methods",
        title=f"time: {_of(kind, target)}",
    )
    return show.err.print("onward methods METHOD: its settings and presets", style="dim")


def about(name: str, kind: Kind) -> dict[str, Any]:
    """What `onward methods` says of a method; `seconds` are None where nothing was measured (`seeds` None
    too), or where a seed did not come to the target."""
    arm, mine = contract.ARMS[name], line(name, kind)
    reference = line(REFERENCE, kind)
    needs = [arm.about.needs] if arm.about.needs != "-" else []
    needs += ["torch worker"] if arm.autograd and not any("torch worker" in one for one in needs) else []
    return {
        "name": name,
        "formula": arm.about.formula,
        "forwards": arm.about.forwards,
        "state": arm.about.state,
        "replay": arm.replay,
        "needs": ", ".join(needs) or "-",
        "use": arm.about.use,
        "source": arm.about.source,
        "autograd": arm.autograd,
        "target": mine.target if mine else None,
        "seconds": mine.seconds if mine else None,
        "accuracy": mine.accuracy if mine else None,
        "spread": mine.spread if mine else None,
        "seeds": mine.seeds if mine else None,
        "reference_seconds": reference.seconds if reference else None,
    }


def line(name: str, kind: Kind) -> Evidence | None:
    return next((one for one in EVIDENCE if one.method == name and kind.matches(one)), None)


def settings(arm: type[MethodSettings]) -> list[dict[str, Any]]:
    """Every setting beside the name: `default` is None where a preset must say, `bounds` in words."""
    return [
        {
            "setting": name,
            "default": None if field.is_required() else field.default,
            "required": field.is_required(),
            "bounds": _bounds(arm, name),
        }
        for name, field in arm.model_fields.items()
        if name != "name"
    ]


def presets(lines: Iterable[Line]) -> list[dict[str, Any]]:
    """What each line fixes, in the order in which they are tried."""
    return [
        {
            "model": one.model,
            "objective": one.objective,
            "activation": one.activation,
            "steps": one.preset.steps,
            "batch_size": one.preset.batch_size,
            "repeat": one.preset.repeat,
            "epochs": one.preset.epochs,
            "rank": one.preset.rank,
            "targets": list(one.preset.targets),
            "settings": dict(one.preset.settings),
        }
        for one in lines
    ]


def _one(name: str, kind: Kind, as_json: bool) -> None:
    arm, said = contract.ARMS[name], about(name, kind)
    if as_json:
        return show.as_json({**said, "settings": settings(arm), "presets": presets(arm.presets)})
    words = ("name", "formula", "forwards", "state", "replay", "needs", "use", "source")
    time = _time(said) + ("" if said["target"] is None else f", {_of(kind, said['target'])}")
    show.pairs([*((key, show.text(str(said[key]))) for key in words), ("time", time)])
    rows = (
        (one["setting"], "the preset's" if one["required"] else str(one["default"]), show.text(one["bounds"]))
        for one in settings(arm)
    )
    show.table(["setting", "default", "takes"], rows, empty="no settings", title="\nSettings")
    lines = (
        (
            *(str(one[key]) for key in ("model", "objective", "activation", "steps", "batch_size")),
            ", ".join(one["targets"]),
            ", ".join(f"{key} {value}" for key, value in one["settings"].items()),
        )
        for one in presets(arm.presets)
    )
    columns = ["base", "objective", "activation", "steps>", "rows>", "modules", "settings"]
    return show.table(columns, lines, empty="no presets", title="\nPresets, the first that matches")


def _row(said: dict[str, Any]) -> tuple[str, ...]:
    kept = ("name", "formula", "forwards", "state", "replay", "needs", "use")
    return (*(said[key] for key in kept), _time(said), _seconds(said["reference_seconds"]))


def _time(said: dict[str, Any]) -> str:
    return NOT_REACHED if said["seeds"] and said["seconds"] is None else _seconds(said["seconds"])


def _seconds(seconds: float | None) -> str:
    return NOT_MEASURED if seconds is None else f"{seconds:.3g} s"


def _of(kind: Kind, target: float | None) -> str:
    said = f"processor time of {kind.model}, objective {kind.objective}, activation {kind.activation}"
    return said if target is None else f"{said}, to a held-out loss of {target:.3g}"


def _bounds(arm: type[MethodSettings], name: str) -> str:
    """The words or numbers that a setting takes: those of the schema, or the narrower ones asked at admission."""
    field = arm.model_fields[name]
    if get_origin(field.annotation) is Literal:
        return " | ".join(map(str, get_args(field.annotation)))
    kind = getattr(field.annotation, "__name__", None) or "number or none"
    if name in arm.ranges:
        low, high = arm.ranges[name]
        return f"{kind}, {low:g} to {high:g}"
    found = [
        f"{sign} {getattr(one, key):g}" for one in field.metadata for key, sign in BOUNDS.items() if hasattr(one, key)
    ]
    return ", ".join([kind, *found])
