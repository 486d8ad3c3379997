"""From a request to the job's contract: every `auto` resolved, every limit checked, the price counted. Knows what the
files and the base model are, and writes nothing."""

import secrets
from dataclasses import dataclass
from typing import Any, TypeVar

from api import errors
from api.context import Context
from api.jobs import activation
from api.jobs.request import Hyperparameters, JobCreate, Onward
from db import files
from db.contract.presets import resolve
from db.contract.pricing import Counts, Price, price, steps_within
from db.contract.rows.files import OBJECTIVES, Format
from db.contract.spec import JobSpec
from db.contract.tokens.base_model import Base, load
from db.tables import File

T = TypeVar("T")
SEEDS = 2**31  # a seed we draw fits OpenAI's integer
# Fields of `onward` that are no setting of the method or the run, or mean nothing without the rows.
ELSEWHERE = ("seed", "token_budget", "activation", "invocation")
LOZO_ONLY = ("nu", "window_rank", "refresh")


@dataclass(frozen=True)
class Admitted:
    """`invocation` is the text that `spec.adapter.invocation` spells, None for activation `all`."""

    spec: JobSpec
    price: Price
    invocation: str | None


def admit(body: JobCreate, tenant: str, context: Context) -> Admitted:
    """The spec and what it costs. Raises ApiError: 404 for a model or file that is not there, 400 for the rest.

    Counting tokens may take seconds the first time a file meets a model: no transaction is open meanwhile.
    """
    if body.model not in context.settings.models:
        raise errors.no_model(body.model)
    base = load(body.model, context.settings)
    training = examples(body.training_file, "training_file", tenant, context)
    validation = (
        None if body.validation_file is None else examples(body.validation_file, "validation_file", tenant, context)
    )
    if body.onward.activation != "auto":  # what no row decides is refused before one is tokenised
        placeholder = (0,) if body.onward.activation == "answer" else ()
        contract(body, base, training, validation, placeholder, context)
    named = [(training, "training_file"), *([] if validation is None else [(validation, "validation_file")])]
    found = activation.settled(
        body.onward, [activation.Source(file, param, base, tenant, context) for file, param in named]
    )
    spec = contract(body, base, training, validation, found.invocation, context)
    train, valid = (*found.counts, Counts())[:2]
    cost = price(spec, train, valid)
    if spec.token_budget is not None and cost.total > spec.token_budget:
        fits = steps_within(spec.token_budget, spec, train, valid)
        message = (
            f"The job costs {cost.total} scored tokens, more than the budget of {spec.token_budget}: "
            f"{fits} of its {spec.steps} steps would fit."
        )
        raise errors.invalid(message, "onward.token_budget", "token_budget_exceeded")
    return Admitted(spec, cost, found.text)


def examples(file_id: str, param: str, tenant: str, context: Context) -> File:
    with context.sessions.begin() as session:
        file = errors.found(files.get(tenant, session, file_id), errors.no_file(file_id, param))
    if file.format is None:
        raise errors.invalid(f"{file_id} has purpose '{file.purpose}', not 'fine-tune'.", param, "invalid_purpose")
    return file


def contract(
    body: JobCreate,
    base: Base,
    training: File,
    validation: File | None,
    invocation: tuple[int, ...],
    context: Context,
) -> JobSpec:
    """The spec of an adapter that acts from `invocation` on, on all tokens where it is empty. Raises ApiError 400."""
    asked = settings_of(body)
    formats = [(training, "training_file"), *([] if validation is None else [(validation, "validation_file")])]
    objective = fitting(asked.get("objective"), formats)
    seed = agreed("seed", body.seed, body.onward.seed)
    if validation is None and asked.get("eval_rows"):
        raise errors.invalid("'onward.eval_rows' needs a validation file.", "onward.eval_rows")
    values = resolve(
        asked
        | {"objective": objective, "activation": "answer" if invocation else "all", "invocation": invocation or None},
        base,
        _format(training),
        training.rows,
        0 if validation is None else validation.rows,
    )
    spec = errors.built(
        JobSpec,
        values
        | {
            "model": base.name,
            "training_file": training.id,
            "validation_file": validation.id if validation is not None else None,
            "suffix": body.suffix,
            "token_budget": body.onward.token_budget,
            "seed": secrets.randbelow(SEEDS) if seed is None else seed,
        },
        "onward",
    )
    stray = [name for name in LOZO_ONLY if name in asked and spec.method.name != "lozo"]
    if stray:
        raise errors.invalid(f"'onward.{stray[0]}' is a setting of the method 'lozo' only.", f"onward.{stray[0]}")
    within_limits(spec, base, context)
    return spec


def settings_of(body: JobCreate) -> dict[str, Any]:
    """What the tenant fixed of method and run, flat, from our fields and from both places OpenAI has for its own."""
    fixed = _fixed(body.onward)
    supervised = body.method.supervised if body.method is not None else None
    places = [_fixed(body.hyperparameters), _fixed(supervised.hyperparameters if supervised is not None else None)]
    for name in Hyperparameters.model_fields:
        value = agreed(f"hyperparameters.{name}", *(place.get(name) for place in places))
        value = agreed(f"hyperparameters.{name}", value, fixed.get(name))
        if value is not None:
            fixed[name] = value
    if "learning_rate" in fixed and "learning_rate_multiplier" in fixed:
        message = "'onward.learning_rate' and 'hyperparameters.learning_rate_multiplier' both set the rate: send one."
        raise errors.invalid(message, "hyperparameters.learning_rate_multiplier")
    return fixed


def _fixed(part: Onward | Hyperparameters | None) -> dict[str, Any]:
    if part is None:
        return {}
    values = part.model_dump(exclude=set(ELSEWHERE))
    return {name: value for name, value in values.items() if value is not None and value != "auto"}


def agreed(param: str, *values: T | None) -> T | None:
    """The one value given, in however many places; raises ApiError 400 where they differ."""
    given = [value for value in values if value is not None]
    if any(value != given[0] for value in given):
        raise errors.invalid(f"'{param}' is given twice, as {given[0]} and as {given[1]}.", param)
    return given[0] if given else None


def fitting(asked: str | None, formats: list[tuple[File, str]]) -> str:
    """The objective that all files can train; the one asked for must be it."""
    trained = OBJECTIVES[_format(formats[0][0])]
    for file, param in formats:
        able = OBJECTIVES[_format(file)]
        if asked is not None and asked != able:
            message = f"Objective '{asked}' cannot use {param}: its rows are of format '{file.format}' ('{able}')."
            raise errors.invalid(message, "onward.objective", "objective_mismatch")
        if able != trained:
            message = f"The validation file is of format '{file.format}', the training file is not."
            raise errors.invalid(message, param, "objective_mismatch")
    return trained


def within_limits(spec: JobSpec, base: Base, context: Context) -> None:
    """What the schema of a spec cannot know: this server's limits and this model's modules."""
    server = context.settings
    for name, value, most in (
        ("steps", spec.steps, server.max_steps),
        ("batch_size", spec.batch_size, server.max_batch_size),
        ("rank", spec.adapter.rank, server.max_rank),
        ("warmup_steps", spec.method.warmup_steps, spec.steps),
    ):
        if value > most:
            raise errors.invalid(f"'onward.{name}' is {value}: at most {most} here.", f"onward.{name}", "above_limit")
    if spec.adapter.activation == "answer" and (never := base.everywhere_only(spec.adapter.targets)):
        message = f"An adapter of activation 'answer' cannot act on {never[0]}: PEFT could not run it. Leave it out."
        raise errors.invalid(message, "onward.targets", "invalid_value")
    for name, inputs, outputs in base.select(spec.adapter.targets):
        if spec.adapter.rank > min(inputs, outputs):
            message = f"Rank {spec.adapter.rank} is more than {name} can have: it is {inputs} by {outputs}."
            raise errors.invalid(message, "onward.rank", "above_limit")


def _format(file: File) -> Format:
    return file.format  # type: ignore[return-value]
