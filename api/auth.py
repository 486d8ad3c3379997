"""Bearer keys: from the Authorization header to a tenant. Every route of a tenant's rows depends on it."""

import hashlib
from dataclasses import dataclass
from typing import Annotated, get_args

from fastapi import Depends, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import errors
from api.context import Context, Ctx
from api.rates import Taken
from db import audit
from db.tenant import keys

bearer = HTTPBearer(auto_error=False, description="A key as `onward keys create` prints it: sk-onward-…")
READS = frozenset(("GET", "HEAD", "OPTIONS"))
CHATS = frozenset(("/v1/chat/completions", "/v1/completions"))
SPEAKS = CHATS | {"/console/chat"}  # what serves, the console's way to it among them
# To read these is part of serving: who may ask sees what there is to ask, and the page to do it from.
MODELS = ("/v1/models", "/console/playground", "/console/static")
DOORS = frozenset(("/console/login", "/console/logout"))  # any good key may come and go
SAID = {"train": "train and read", "serve": "chat", "read": "read"}
ASKS = frozenset(("/v1/onward/receipts/verify",))  # routes that change nothing, although what is asked comes by POST


@dataclass(frozen=True)
class Caller:
    id: str
    name: str
    key: str  # its id
    weight: float = 1.0  # its share


def known(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)], context: Ctx
) -> keys.Known:
    """Whose key was sent; 401 for none, a wrong, a revoked or an expired one, which look alike. 403 where it may not do
    this. A transaction of its own: the request's body may be slow, and nothing is held while it is read."""
    challenge = {"www-authenticate": "Bearer"}
    if sent is None or not sent.credentials:
        message = "You didn't provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'."
        raise errors.ApiError(401, message, headers=challenge)
    rates, most = context.rates, context.settings.wrong_keys_a_minute
    address = request.client.host if request.client is not None else ""
    digest = hashlib.sha256(sent.credentials.encode("utf-8", "surrogatepass")).digest()
    rates.may_try(address, digest, most)
    found = _looked_up(request, digest, context)
    if found is None:
        rates.wrong_key(address, most)
        raise errors.ApiError(401, "Incorrect API key provided.", code="invalid_api_key", headers=challenge)
    rates.good_key(digest)
    audit.current().actor = found.key
    context.last_use.note(context.sessions, found.key, found.tenant.id if found.tenant else None, digest)
    if found.scope != "operator" and found.rights.isdisjoint(needed(request.method, _path(request))):
        raise insufficient(f"This key may only {' and '.join(SAID[right] for right in _most(found.rights))}")
    return found


def _looked_up(request: Request, digest: bytes, context: Context) -> keys.Known | None:
    """The database's word; for a chat, while it is away, what it last said of this key."""

    def read() -> keys.Known | None:
        return keys.recognised(context.sessions, digest)

    return context.memory.through(("key", digest), read) if _path(request) in SPEAKS else read()


def _path(request: Request) -> str:
    """Of the route, wherever the whole is mounted."""
    return request.url.path.removeprefix(request.scope.get("root_path", ""))


def needed(method: str, path: str) -> frozenset[keys.Right]:
    """Of a key's rights, those of which one is enough here."""
    if path in DOORS:
        return keys.WHOLE
    if path in SPEAKS:
        return frozenset(("serve",))
    if method in READS:
        return frozenset(("read", "serve") if path.startswith(MODELS) else ("read",))
    return frozenset(("read",) if path in ASKS else ("train",))


def _most(rights: frozenset[keys.Right]) -> list[keys.Right]:
    """In words, without what another of them is part of."""
    return [right for right in get_args(keys.Right) if right in rights and not (right == "read" and "train" in rights)]


def caller(request: Request, key: keys.Known, context: Context) -> Caller:
    """The tenant whose key was sent, charged for one request more. An operator's key speaks for no tenant: 403."""
    holder = _holder(request, key)
    return _charged(request, key, holder, _charge(context, holder))


async def called(request: Request, key: Annotated[keys.Known, Depends(known)], context: Ctx) -> Caller:
    """`caller`, on the loop: on a thread only where Valkey is to be asked."""
    holder = _holder(request, key)
    most = context.settings.requests_a_minute
    taken = context.rates.at_hand(holder.id, most) if most else None
    if taken is None and most:
        taken = await run_in_threadpool(_charge, context, holder)
    return _charged(request, key, holder, taken)


def _holder(request: Request, key: keys.Known) -> keys.Holder:
    if key.tenant is None:
        raise insufficient("An operator's key speaks for no tenant")
    request.scope["tenant"] = key.tenant.id  # for the log's line
    return key.tenant


def _charge(context: Context, holder: keys.Holder) -> Taken | None:
    return context.rates.charge("requests", holder.id, context.settings.requests_a_minute)


def _charged(request: Request, key: keys.Known, holder: keys.Holder, taken: Taken | None) -> Caller:
    request.scope["rates"] = {} if taken is None else taken.headers
    return Caller(holder.id, holder.name, key.key, holder.weight)


def insufficient(why: str) -> errors.ApiError:
    message = f"You have insufficient permissions for this operation. {why}."
    return errors.ApiError(403, message, code="insufficient_scope")


async def entered(request: Request, found: Annotated[Caller, Depends(called)], context: Ctx) -> Caller:
    """The tenant, with one request more under way until this one ends. Raises ApiError 429."""
    most = context.settings.max_requests_of_tenant
    if context.under_way[found.id] >= most:
        message = f"{most} requests of yours are under way: try again."
        raise errors.ApiError(429, message, kind="requests", code="rate_limit_exceeded", headers={"retry-after": "1"})
    context.under_way[found.id] += 1

    def leave() -> None:
        context.under_way[found.id] -= 1
        if not context.under_way[found.id]:
            del context.under_way[found.id]

    request.scope["leaving"].append(leave)
    return found


Key = Annotated[keys.Known, Depends(known)]
Tenant = Annotated[Caller, Depends(entered)]
