"""What a tenant may send to create a job: OpenAI's fields and ours under `onward`. Knows shapes and types; ranges are
the spec's (`db/contract/spec.py`), and what goes with files and model is decided in `db/contract/admit.py`."""

import re
import unicodedata
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

from pydantic import Field, create_model

from api.jobs.method_fields import METHOD, SETTINGS, Strict, words
from db.contract.admit import Asked
from db.contract.objectives import OBJECTIVES
from db.contract.refusal import Refusal

Auto = Literal["auto"] | None
Finite = Annotated[float, Field(allow_inf_nan=False)]
Text = Annotated[str, Field(pattern=r"^[^\x00]*$")]  # PostgreSQL holds no NUL
Identifier = Annotated[str, Field(min_length=1, max_length=200, pattern=r"^[^\x00]*$")]
MAX_PAIRS = 16
T = TypeVar("T")
# Fields of `onward` that are no setting of the method or the run, or mean nothing without the rows.
ELSEWHERE = ("seed", "activation", "invocation", "priority")


class Hyperparameters(Strict):
    """OpenAI's. `n_epochs` sets the steps where `onward.steps` does not; the multiplier scales the preset's rate."""

    batch_size: Annotated[int, Field(ge=1)] | Auto = None
    learning_rate_multiplier: Annotated[float, Field(gt=0, le=1000)] | Auto = None
    n_epochs: Annotated[int, Field(ge=1, le=1_000_000)] | Auto = None


class Supervised(Strict):
    hyperparameters: Hyperparameters | None = None


class Method(Strict):
    type: Literal["supervised"]
    supervised: Supervised | None = None


class Own(Strict):
    """Ours. Absent, null and "auto" mean the preset of the model and task.

    `method` is a name, whose settings then stand beside it, or an object of a `name` and its settings.

    The exception is `activation`: absent or null it is "all", a plain LoRA, which every PEFT runtime and an unmodified
    vLLM serve. With "answer" the adapter acts from the last `invocation` on (PEFT's activated LoRA): a text that every
    prompt has or, absent, null or "auto", the common end of all prompts. "auto" is "answer" where all rows allow it,
    nothing to be learned is dropped and a visit to a row costs a quarter at most, else "all".
    """

    method: Any = None
    objective: Any = None
    rank: int | Auto = None
    alpha: Finite | Auto = None
    activation: Literal["all", "answer", "auto"] | None = None
    invocation: Identifier | None = None
    targets: Annotated[list[Identifier], Field(min_length=1, max_length=64)] | Auto = None
    layers: (
        Annotated[
            str,
            Field(pattern=r"^(all|last:[1-9][0-9]{0,3})$", description="`last:k`: of the last k layers alone; `all`."),
        ]
        | Auto
    ) = None
    steps: int | Auto = None
    batch_size: Annotated[int, Field(ge=1)] | Auto = None
    repeat: int | Auto = None
    eval_every: int | Auto = None
    eval_rows: int | Auto = None
    held_out: int | Auto = None
    seed: int | None = None
    priority: int | None = Field(default=None, ge=-100, le=100, description="Of the tenant's jobs, high goes first.")
    token_budget: int | None = Field(default=None, ge=1, lt=2**63)
    on_divergence: Literal["stop", "restart", "continue"] | Auto = None
    max_restarts: int | Auto = None
    patience: int | Auto = None


if TYPE_CHECKING:
    Onward = Own
else:  # what the contract has of methods and objectives becomes fields and words here
    Onward = create_model(
        "Onward",
        __base__=Own,
        __doc__=Own.__doc__,
        method=(METHOD | None, None),
        objective=(words(OBJECTIVES) | None, None),
        **SETTINGS,
    )


class JobCreate(Strict):
    """The body of POST /v1/fine_tuning/jobs."""

    model: Identifier
    training_file: Identifier
    validation_file: Identifier | None = None
    suffix: (
        Annotated[
            str, Field(max_length=64, description="In the model's name; letters, digits and ._- as they are, else -.")
        ]
        | None
    ) = None
    seed: int | None = None
    metadata: (
        Annotated[
            dict[Annotated[Text, Field(max_length=64)], Annotated[Text, Field(max_length=512)]],
            Field(max_length=MAX_PAIRS),
        ]
        | None
    ) = None
    hyperparameters: Hyperparameters | None = None
    method: Method | None = None
    integrations: list[Any] | None = Field(default=None, description="Not supported: empty, null or absent.")
    onward: Onward = Onward()


def asked(body: JobCreate) -> Asked | Refusal:
    """What the tenant fixed, flat, from our fields and from both places OpenAI has for its own."""
    if body.integrations:
        return _integrations(body.integrations[0])
    ours, places = _flat(body.onward)
    if isinstance(ours, Refusal):
        return ours
    supervised = body.method.supervised if body.method is not None else None
    theirs = [_fixed(body.hyperparameters), _fixed(supervised.hyperparameters if supervised is not None else None)]
    for name in Hyperparameters.model_fields:
        path = f"hyperparameters.{name}"
        value = _agreed(path, *(place.get(name) for place in theirs), ours.get(name))
        if isinstance(value, Refusal):
            return value
        if value is not None and name not in ours:
            ours[name], places[name] = value, path
    if "learning_rate" in ours and "learning_rate_multiplier" in ours:
        path = "hyperparameters.learning_rate_multiplier"
        return Refusal(path, f"'onward.learning_rate' and '{path}' both set the rate: send one.", "invalid_value")
    seed = _agreed("seed", body.seed, body.onward.seed)
    if isinstance(seed, Refusal):
        return seed
    own = {"seed": seed, "suffix": tidied(body.suffix or "") or None}
    places |= {"seed": "seed"} if body.seed is not None else {}
    ours |= {name: value for name, value in own.items() if value is not None}
    text = None if body.onward.invocation == "auto" else body.onward.invocation
    return Asked(ours, places | {"suffix": "suffix"}, body.onward.activation or "all", text)


def tidied(suffix: str) -> str:
    """What a suffix comes to in a name: accents go, a run of what is no letter, digit, dot, underscore or hyphen
    becomes one hyphen, and none stands at an end. What is left may be nothing."""
    plain = unicodedata.normalize("NFKD", suffix).encode("ascii", "ignore")
    return re.sub(r"[^A-Za-z0-9._]+", "-", plain.decode()).strip("-")


def _integrations(first: Any) -> Refusal:
    kind = first.get("type") if isinstance(first, dict) else None
    named = f"The integration '{kind[:40]}'" if isinstance(kind, str) and kind else "An integration"
    return Refusal(
        "integrations", f"{named} is not supported here: leave 'integrations' out or empty.", "invalid_value"
    )


def _flat(onward: Own) -> tuple[dict[str, Any] | Refusal, dict[str, str]]:
    """Ours, with the settings of a method given as an object lifted beside its name, and where those were."""
    fixed = _fixed(onward)
    nested = fixed.get("method")
    if not isinstance(nested, dict):
        return fixed, {}
    fixed["method"] = nested.pop("name")
    settings = {name: value for name, value in nested.items() if value is not None and value != "auto"}
    for name, value in settings.items():
        agreed = _agreed(f"onward.method.{name}", value, fixed.get(name))
        if isinstance(agreed, Refusal):
            return agreed, {}
    return fixed | settings, {name: f"onward.method.{name}" for name in settings}


def _fixed(part: Own | Hyperparameters | None) -> dict[str, Any]:
    if part is None:
        return {}
    values = part.model_dump(exclude=set(ELSEWHERE))
    return {name: value for name, value in values.items() if value is not None and value != "auto"}


def _agreed(path: str, *values: T | None) -> T | Refusal | None:
    """The one value given, in however many places; refused where they differ."""
    given = [value for value in values if value is not None]
    if any(value != given[0] for value in given):
        return Refusal(path, f"'{path}' is given twice, as {given[0]} and as {given[1]}.", "invalid_value")
    return given[0] if given else None
