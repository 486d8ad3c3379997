"""OpenAI's hyperparameters as figures: what a job's spec comes to, whatever of it was asked for. Knows no row."""

from collections.abc import Mapping
from typing import Any, Final

from db.contract.presets import preset
from db.contract.spec import JobSpec

HYPER: Final = ("n_epochs", "batch_size", "learning_rate_multiplier")
DIGITS: Final = 6  # of a multiplier


def hyperparameters(request: Mapping[str, Any], spec: JobSpec | None, rows: int | None) -> dict[str, Any]:
    """What the tenant sent and, where it left that to us, what it came to; "auto" as long as there is no `spec`. `rows`
    are the training file's. `n_epochs` is a whole number, as OpenAI's: `epochs` rounded, and at least 1."""
    sent = asked(request)
    if spec is None:
        return {name: sent.get(name, "auto") for name in HYPER}
    seen = epochs(spec, rows)
    known = {
        "n_epochs": "auto" if seen is None else max(1, round(seen)),
        "batch_size": spec.batch_size,
        "learning_rate_multiplier": _multiplier(request, spec),
    }
    return known | {name: value for name, value in sent.items() if name != "batch_size"}


def asked(request: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the three that a request fixes, from both places where it may."""
    method = (request.get("method") or {}).get("supervised") or {}
    given = (request.get("hyperparameters") or {}) | (method.get("hyperparameters") or {})
    return {name: given[name] for name in HYPER if given.get(name) not in (None, "auto")}


def epochs(spec: JobSpec, rows: int | None) -> float | None:
    """How often each row that is trained on is visited by a minibatch: one that serves several steps counts once."""
    return None if not rows else spec.steps / spec.repeat * spec.batch_size / (rows - spec.held_out)


def _multiplier(request: Mapping[str, Any], spec: JobSpec) -> float | str:
    """The rate over the preset's, which is 1 where the rate was left to us."""
    ours = request.get("onward") or {}
    nested = ours.get("method")
    rates = [place.get("learning_rate") for place in (ours, nested if isinstance(nested, dict) else {})]
    if all(rate in (None, "auto") for rate in rates):
        return 1.0
    try:
        rate = preset(spec.model, spec.objective, spec.method.name, spec.adapter.activation).settings["learning_rate"]
    except (ValueError, KeyError):
        return "auto"
    return float(f"{spec.method.learning_rate / rate:.{DIGITS}g}")
