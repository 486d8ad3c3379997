"""What a request's answer depends on beside its words: who is called by its name, what the tenant may still be served,
who offers it. Read in one transaction and one round trip; remembered for while the database is away."""

from dataclasses import dataclass

from api import errors, missing
from api.chat.routing import Offer, offer
from api.context import Context
from api.errors import ApiError
from db import one_trip, security, workers
from db.contract.tokens.base_model import Base, UnknownBase, UnusableBase, load
from db.tenant import served, speakers
from db.tenant.served import Allowance
from db.tenant.speakers import NotKept, NotLive, Speaker


@dataclass(frozen=True)
class Gathered:
    found: Speaker | NotLive | NotKept
    allowance: Allowance
    offers: tuple[Offer, ...]


def gathered(tenant: str, context: Context, name: str) -> Gathered:
    """Raises ApiError 404 for a name that is nobody's or not this tenant's, and what the database raises that is away
    and has not told before."""

    def read() -> Gathered | None:
        base = name in context.settings.models
        named = () if base else (speakers.named(tenant, name),)
        reads = security.entering(tenant), served.left(tenant), workers.serve(), *named
        _, left, serving, *rows = one_trip.rows(context.sessions, *reads)
        found = Speaker(name, name) if base else speakers.found(tenant, name, rows[0])
        if found is None:
            return None
        offered = workers.servers(serving, found.base) if isinstance(found, Speaker) else []
        offers = tuple(o for each in offered if (o := offer(each.worker, each.serving)) is not None)
        return Gathered(found, served.allowance(left), offers)

    known = context.memory.through(("chat", tenant, name), read)
    return errors.found(known, missing.model(name))


def speaker(name: str, found: Speaker | NotLive | NotKept) -> Speaker:
    """Raises ApiError where the name is known and cannot be asked: why, and which can."""
    if isinstance(found, Speaker):
        return found
    if isinstance(found, NotKept):
        known = ", ".join(map(str, found.steps))
        message = f"Step {found.step} followed from gradients and was not kept. Steps that can be asked: {known}."
        raise ApiError(404, message, param="model", code="step_not_kept", headers=errors.FINAL)
    at = f", at step {found.step}" if found.step else ""
    message = f"'{name}' is not live: its job is {found.what}{at}. Use '{found.instead}'."
    raise ApiError(409, message, param="model", code="model_not_live", headers=errors.FINAL)


def base_of(context: Context, who: Speaker) -> Base:
    """Raises ApiError 404 for one that is configured no more, 503 for one whose files cannot be read."""
    try:
        return load(who.base, context.settings)
    except UnknownBase:
        raise missing.model(who.name) from None
    except UnusableBase as error:
        message = f"The base model '{who.base}' cannot be read at the moment."
        raise ApiError(503, message, kind="server_error", code="unavailable", headers={"retry-after": "30"}) from error
