"""Tenants and their API keys. A key is shown once; the database holds its SHA-256. Knows no job and no file."""

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Literal, cast

from sqlalchemy import ColumnElement, LargeBinary, and_, bindparam, func, literal, or_, select, text, update
from sqlalchemy.orm import Session, sessionmaker

from db import audit, one_trip, security
from db.ids import KEY_PREFIX, new_id, new_key
from db.one_trip import Read
from db.tables import ApiKey, Tenant

HINT_CHARS = len(KEY_PREFIX) + 4
USED_EVERY = timedelta(minutes=1)  # how exactly a key's last use is known
Scope = Literal["tenant", "read", "operator"]
Right = Literal["train", "serve", "read"]  # to train is to read too; to serve is to chat, and to see models
WHOLE: frozenset[Right] = frozenset(("train", "serve", "read"))
OF_SCOPE: dict[str, frozenset[Right]] = {"tenant": WHOLE, "read": frozenset(("read",)), "operator": frozenset()}


@dataclass(frozen=True)
class Holder:
    """The tenant for whom a key speaks; `weight` is its share."""

    id: str
    name: str
    weight: float


@dataclass(frozen=True)
class Known:
    """A good key: its id, its scope, what of `WHOLE` it may, and for whom it speaks (an operator's for nobody)."""

    key: str
    scope: Scope
    tenant: Holder | None
    rights: frozenset[Right]


def create(
    session: Session,
    name: str,
    tenant_class: str = "standard",
    weight: float = 1.0,
    token_quota: int | None = None,
    max_jobs: int = 1000,
    max_running: int | None = None,
    daily_tokens: int | None = None,
    max_bytes: int | None = None,
    serve_quota: int | None = None,
    daily_serve_tokens: int | None = None,
) -> Tenant:
    """A new tenant. `weight` is its share of scored tokens, `token_quota` a cap on them, `daily_tokens` one a day, UTC,
    `max_running` a cap on the jobs that run at one time (None: unlimited), `max_bytes` one on its files and results
    (None: the API's setting); `serve_quota` and `daily_serve_tokens` are caps on served tokens, in all and a day.

    Raises sqlalchemy's IntegrityError when the name is taken.
    """
    tenant = Tenant(
        id=new_id("ten_"),
        name=name,
        tenant_class=tenant_class,
        weight=weight,
        token_quota=token_quota,
        max_jobs=max_jobs,
        max_bytes=max_bytes,
        max_running=max_running,
        daily_tokens=daily_tokens,
        serve_quota=serve_quota,
        daily_serve_tokens=daily_serve_tokens,
    )
    session.add(tenant)
    session.flush()
    about = {"name": name, "class": tenant_class, "weight": weight, "token_quota": token_quota, "max_jobs": max_jobs}
    audit.write(session, tenant.id, "tenant.create", tenant.id, about)
    return tenant


def find(session: Session, name: str) -> Tenant | None:
    """The tenant called `name`."""
    return session.scalar(select(Tenant).where(Tenant.name == name))


def create_key(
    session: Session,
    tenant_id: str | None,
    *,
    scope: Scope = "tenant",
    name: str | None = None,
    lasts: timedelta | None = None,
    rights: Collection[Right] | None = None,
) -> tuple[ApiKey, str]:
    """A new key's row, and the secret, which cannot be had again. Without `lasts` it has no end. `rights` are what it
    may, in place of what `scope` says.

    Raises sqlalchemy's IntegrityError where scope `operator` has a tenant, or another has none.
    """
    if rights is not None:
        scope = "tenant" if "train" in rights else "read"  # for a release that knows no rights
    row, secret = _insert(session, tenant_id, scope, name, lasts, rights)
    about = {"scope": scope, "expires_at": _iso(row)} | ({"scopes": row.scopes} if row.scopes is not None else {})
    audit.write(session, tenant_id, "key.create", row.id, about)
    return row, secret


def rotate_key(session: Session, key_id: str, grace: timedelta) -> tuple[ApiKey, str] | None:
    """A key like the live key `key_id`, which itself ends after `grace`, or when it would have ended if that is sooner.
    The new one lasts as long as the old one was made for. None: there is no such live key."""
    wanted = select(ApiKey).where(ApiKey.id == key_id, _live()).with_for_update()
    old = session.scalar(wanted.execution_options(populate_existing=True))
    if old is None:
        return None
    lasts = old.expires_at - old.created_at if old.expires_at is not None else None
    row, secret = _insert(
        session, old.tenant_id, cast(Scope, old.scope), old.name, lasts, cast(list[Right] | None, old.scopes)
    )
    ends = func.clock_timestamp() + literal(grace)
    session.execute(update(ApiKey).where(ApiKey.id == key_id).values(expires_at=func.least(ApiKey.expires_at, ends)))
    session.refresh(old)
    audit.write(session, old.tenant_id, "key.rotate", key_id, {"to": row.id, "expires_at": _iso(old)})
    return row, secret


def revoke_key(session: Session, key_id: str) -> bool:
    """Ends the key at once. False: there is no such key, or it was revoked before."""
    live = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
    revoked = session.execute(live.returning(ApiKey.tenant_id)).first()
    if revoked is not None:
        audit.write(session, revoked[0], "key.revoke", key_id)
    return revoked is not None


def authenticate(session: Session, secret: str) -> Known | None:
    """Whose key `secret` is, or None: a wrong, a revoked and an expired key look the same, so that whoever finds an old
    one does not learn that it was ever good.

    The lookup is by hash of a 256-bit random secret, so its timing tells nothing of any other key.
    """
    digest = _hash(secret)
    security.present(session, digest)
    return _known(session.execute(_GOOD, {"digest": digest}).all(), digest)


def recognised(sessions: sessionmaker[Session], digest: bytes) -> Known | None:
    """`authenticate`, by the key's SHA-256, in a transaction of its own and one round trip."""
    _, found = one_trip.rows(sessions, security.presenting(digest), _GOOD_READ.with_(digest=digest))
    return _known(found, digest)


def _known(rows: Sequence[Any], digest: bytes) -> Known | None:
    for found, key, scope, scopes, *holder in rows:
        if hmac.compare_digest(found, digest):
            return Known(key, scope, Holder(*holder) if holder[0] is not None else None, allowed(scope, scopes))
    return None


def allowed(scope: str, scopes: Collection[str] | None) -> frozenset[Right]:
    """What a key may whose row says this. Who trains reads."""
    if scopes is None:
        return OF_SCOPE[scope]
    return cast(frozenset[Right], frozenset(scopes) | ({"read"} if "train" in scopes else frozenset()))


def described(session: Session, secret: str) -> ApiKey | None:
    """The row of a good key, for who has it; None for any other."""
    digest = _hash(secret)
    security.present(session, digest)
    return session.scalar(select(ApiKey).where(ApiKey.hash == digest, _live()))


def mark_used(session: Session, key_id: str) -> None:
    """The key was used just now; nothing is written where that is known to a minute. Waits for no lock for long."""
    session.execute(text("SET LOCAL lock_timeout = '1s'"))
    stale = or_(ApiKey.last_used_at.is_(None), ApiKey.last_used_at < func.clock_timestamp() - literal(USED_EVERY))
    session.execute(update(ApiKey).where(ApiKey.id == key_id, stale).values(last_used_at=func.clock_timestamp()))


def _insert(
    session: Session,
    tenant_id: str | None,
    scope: Scope,
    name: str | None,
    lasts: timedelta | None,
    rights: Collection[Right] | None,
) -> tuple[ApiKey, str]:
    secret = new_key()
    row = ApiKey(
        id=new_id("key_"), tenant_id=tenant_id, hint=secret[:HINT_CHARS], hash=_hash(secret), scope=scope, name=name
    )
    if rights is not None:
        row.scopes = sorted(set(rights))
    if lasts is not None:
        row.expires_at = func.now() + literal(lasts)
    session.add(row)
    session.flush()
    session.refresh(row)
    return row, secret


def _live() -> ColumnElement[bool]:
    ends = or_(ApiKey.expires_at.is_(None), ApiKey.expires_at > func.clock_timestamp())
    return and_(ApiKey.revoked_at.is_(None), ends)


_GOOD = (
    select(ApiKey.hash, ApiKey.id, ApiKey.scope, ApiKey.scopes, Tenant.id, Tenant.name, Tenant.weight)
    .outerjoin(Tenant, Tenant.id == ApiKey.tenant_id)
    .where(ApiKey.hash == bindparam("digest", type_=LargeBinary), _live())
)
_GOOD_READ = Read.of(_GOOD)


def _iso(row: ApiKey) -> str | None:
    return row.expires_at.isoformat() if row.expires_at is not None else None


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
