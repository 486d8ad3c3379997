"""Whether a request becomes a job, decided purely over what was asked and the facts gathered for it.

Gather, decide, translate: the caller reads rows and counts tokens (`Facts`, `Readings`), this page decides, and the
caller says a Refusal in its own protocol. Fields are named by their path in the request. Knows no SQL and no HTTP.
"""

from collections.abc import Iterator
from dataclasses import replace

from pydantic import ValidationError

from db.contract import acting, choosing, derivatives, held_out, methods, precision, profiles, ranges
from db.contract.acting import Activation, Readings
from db.contract.admitted import Admitted as Admitted
from db.contract.admitted import Examples as Examples
from db.contract.asked import Asked as Asked
from db.contract.asked import Facts as Facts
from db.contract.asked import Limits as Limits
from db.contract.choosing import Chosen, Kind
from db.contract.objectives import training
from db.contract.presets import counted, resolve
from db.contract.pricing import Counts, price, steps_within
from db.contract.refusal import Refusal, Unfit
from db.contract.spec import JobSpec
from db.contract.step_limit import Excess, excesses


def first(asked: Asked, facts: Facts) -> JobSpec | Refusal:
    """What can be said before a row is tokenised: the spec but for what rows have a part in, or what refuses it."""
    placeholder = (0,) if asked.activation == "answer" else ()
    return acting.early(asked.activation, asked.text) or contract(
        named(asked, facts, placeholder)[0], facts, placeholder
    )


def early(asked: Asked, facts: Facts) -> Refusal | None:
    """What no row decides, for refusing before one is tokenised."""
    found = first(asked, facts)
    return found if isinstance(found, Refusal) else None


def decide(asked: Asked, facts: Facts, readings: Readings) -> Admitted | Refusal:
    """The job's contract and exact price, or the first reason against it."""
    if refused := early(asked, facts):
        return refused
    able = _acts_on_answers(asked, facts)
    acts = acting.settled(asked.activation, asked.text, able, facts.base, readings)
    if isinstance(acts, Refusal):
        return acts
    asked, chosen = named(asked, facts, acts.invocation)
    spec = _within(asked, facts, acts)
    return spec if isinstance(spec, Refusal) else _priced(spec, acts, facts, chosen)


def named(asked: Asked, facts: Facts, invocation: tuple[int, ...]) -> tuple[Asked, Chosen | None]:
    """The request with a method: where it names none, the best that makes a contract of it, and why."""
    if "method" in asked.values:
        return asked, None
    objective = asked.values.get("objective") or training(facts.training.format)[0].name
    barred = choosing.barred(facts.base.quantised, facts.derivatives)
    kind = Kind(facts.base.name, objective, "answer" if invocation else "all", barred)
    for chosen in choosing.choices(kind, asked.values):
        found = replace(asked, values={**asked.values, "method": chosen.method})
        if isinstance(contract(found, facts, invocation), JobSpec):
            break
    return found, chosen


def contract(asked: Asked, facts: Facts, invocation: tuple[int, ...]) -> JobSpec | Refusal:
    """The spec of an adapter that acts from `invocation` on, on all tokens where it is empty."""
    return next(_against(asked, facts), None) or _built(asked, facts, invocation)


def _against(asked: Asked, facts: Facts) -> Iterator[Refusal]:
    """What in the request does not go with its files."""
    objective = asked.values.get("objective")
    trained = training(facts.training.format)
    for file in facts.files:
        able = training(file.format)
        if objective is not None and objective not in [o.name for o in able]:
            takes = " or ".join(f"'{o.name}'" for o in able)
            message = (
                f"Objective '{objective}' cannot use {file.param}: its rows are of format '{file.format}' ({takes})."
            )
            yield Refusal(asked.path("objective"), message, "objective_mismatch")
        if able != trained:
            message = f"The validation file is of format '{file.format}', the training file is not."
            yield Refusal(file.param, message, "objective_mismatch")
    if (layers := asked.values.get("layers")) and counted(layers) > (depth := facts.base.depth):
        path = asked.path("layers")
        yield Refusal(path, f"'{path}' is {layers}: {facts.base.name} has {depth} layers.", "above_limit")
    for rule in held_out.unfit(asked.values, facts.training.rows, facts.valid_rows):
        yield asked.refusal(rule.field, rule.reason)
    if stranger := _strangers(asked):
        path, owners = asked.path(stranger), " and ".join(f"'{name}'" for name in methods.owners(stranger))
        yield Refusal(path, f"'{path}' is a setting of the method {owners} only.")
    if (kinds := profiles.needed(asked.values.get("method", methods.DEFAULT))) and "profile" not in asked.values:
        named = " or ".join(map(repr, kinds))
        yield asked.refusal("profile", f"this method needs the hash of a profile of kind {named}")


def _strangers(asked: Asked) -> str | None:
    """The first setting asked for that the method has not."""
    own = methods.ARMS[asked.values.get("method", methods.DEFAULT)].model_fields
    return next((name for name in methods.FIELDS if name in asked.values and name not in own), None)


def _built(asked: Asked, facts: Facts, invocation: tuple[int, ...]) -> JobSpec | Refusal:
    acts = {"activation": "answer" if invocation else "all", "invocation": invocation or None}
    rows = facts.training.rows, facts.valid_rows
    values = resolve({**asked.values, **acts}, facts.base, facts.training.format, *rows)
    if "eps" not in asked.values and "eps" in values["method"]:  # a preset's probe is as large as it has to be here
        values["method"]["eps"] = max(values["method"]["eps"], precision.least_eps(facts.dtypes))
    files = {
        "model": facts.base.name,
        "training_file": facts.training.id,
        "validation_file": facts.validation.id if facts.validation is not None else None,
    }
    try:
        spec = JobSpec.model_validate({"seed": facts.seed, **values, **files})
    except ValidationError as error:  # pydantic's way of returning
        return _unfit(asked, error)
    return next(_above(asked, spec, facts), None) or spec


def _unfit(asked: Asked, error: ValidationError) -> Refusal:
    """The first thing that the contract's own rules found."""
    first = error.errors(include_url=False)[0]
    rule = first.get("ctx", {}).get("error")
    if isinstance(rule, Unfit):
        return asked.refusal(rule.field, rule.reason)
    name = next(part for part in reversed(first["loc"]) if isinstance(part, str))
    return asked.refusal(name, first["msg"].removeprefix("Value error, "))


def _above(asked: Asked, spec: JobSpec, facts: Facts) -> Iterator[Refusal]:
    """What the schema of a spec cannot know: this server's limits, what can be computed, this model's modules."""
    limits = facts.limits
    for name, value, most in (
        ("steps", spec.steps, limits.steps),
        ("batch_size", spec.batch_size, limits.batch_size),
        ("rank", spec.adapter.rank, limits.rank),
    ):
        if value > most:
            path = asked.path(name)
            yield Refusal(path, f"'{path}' is {value}: at most {most} here.", "above_limit")
    for rule in ranges.unfit(spec):
        yield asked.refusal(rule.field, rule.reason)
    try:
        spec.method.check_rows(facts.training.rows - spec.held_out)
    except Unfit as rule:
        yield asked.refusal(rule.field, rule.reason)
    targets = asked.path("targets")
    if missing := facts.base.missing(spec.adapter.targets, spec.adapter.layers):
        where = f" in its {spec.adapter.depth} layers" if spec.adapter.layers else ""
        there = f"{facts.base.name} has no module {missing[0]!r}{where}; it has {', '.join(facts.base.targets)}."
        yield Refusal(targets, there, "unknown_target")
        return
    if spec.adapter.activation == "answer" and (never := facts.base.everywhere_only(spec.adapter.targets)):
        message = f"An adapter of activation 'answer' cannot act on {never[0]}: PEFT could not run it. Leave it out."
        yield Refusal(targets, message)
    modules = facts.base.select(spec.adapter.targets, spec.adapter.layers)
    for name, inputs, outputs in modules:
        if spec.adapter.rank > min(inputs, outputs):
            message = f"Rank {spec.adapter.rank} is more than {name} can have: it is {inputs} by {outputs}."
            yield Refusal(asked.path("rank"), message, "above_limit")
    try:
        spec.method.check_modules(modules, spec.adapter.rank)
        profiles.check(spec.method, facts.profile, facts.base, profiles.layout_of(spec.adapter.rank, modules))
    except Unfit as rule:
        yield asked.refusal(rule.field, rule.reason)
    if small := precision.unfit(spec.method, facts.dtypes):
        yield asked.refusal(small.field, small.reason)
    if reason := derivatives.missing(spec.method, facts.base, facts.derivatives):
        yield asked.refusal("method", reason, "no_derivatives")


def _acts_on_answers(asked: Asked, facts: Facts) -> bool:
    """Whether the modules asked for may be acted on from an invocation on."""
    targets = asked.values.get("targets")
    return targets is None or not facts.base.everywhere_only(tuple(targets))


def _within(asked: Asked, facts: Facts, acts: Activation) -> JobSpec | Refusal:
    """The spec, with as many rows a step and an evaluation as this server's limit lets them have where none were asked
    for: what is auto is not refused where any value fits."""
    spec = contract(asked, facts, acts.invocation)
    if isinstance(spec, Refusal):
        return spec
    excess = next(excesses(spec, *_both(acts), facts.limits.step_tokens), None)
    if excess is None:
        return spec
    if excess.field in asked.values or not excess.fits:
        return _too_wide(asked, facts, spec, excess)
    narrower = replace(asked, values={**asked.values, excess.field: excess.fits})
    return _within(narrower, facts, acts)


def _too_wide(asked: Asked, facts: Facts, spec: JobSpec, excess: Excess) -> Refusal:
    message = excess.said(spec, facts.limits.step_tokens)
    if excess.fits:
        return Refusal(asked.path(excess.field), message, "above_limit")
    if excess.what == "step" and "queries" in asked.values:
        return Refusal(asked.path("queries"), f"{message} Fewer queries are fewer probes.", "above_limit")
    return Refusal((facts.training if excess.what == "step" else facts.files[-1]).param, message, "above_limit")


def _both(acts: Activation) -> tuple[Counts, Counts]:
    """The training file's counts and the validation file's."""
    train, valid = (*acts.counts, Counts())[:2]
    return train, valid


def _priced(spec: JobSpec, acts: Activation, facts: Facts, chosen: Chosen | None) -> Admitted | Refusal:
    train, valid = _both(acts)
    cost = price(spec, train, valid)
    if spec.token_budget is None or cost.total <= spec.token_budget:
        return Admitted(spec, cost, acts.text, facts.training, chosen)
    fits = steps_within(spec.token_budget, spec, train, valid)
    message = (
        f"The job costs {cost.total} scored tokens, more than the budget of {spec.token_budget}: "
        f"{fits} of its {spec.steps} steps would fit."
    )
    return Refusal("onward.token_budget", message, "token_budget_exceeded")
