"""Tenants and their API keys. A key is shown once; the database holds its SHA-256. Knows no job and no file."""

import hashlib
import hmac

from sqlalchemy import func, select, update
from sqlalchemy.orm import Session

from db import security
from db.ids import KEY_PREFIX, new_id, new_key
from db.tables import ApiKey, Tenant

HINT_CHARS = len(KEY_PREFIX) + 4


def create(
    session: Session,
    name: str,
    tenant_class: str = "standard",
    weight: float = 1.0,
    token_quota: int | None = None,
    max_jobs: int = 1000,
) -> Tenant:
    """A new tenant. `weight` is its share of scored tokens, `token_quota` a cap on them (None: unlimited).

    Raises sqlalchemy's IntegrityError when the name is taken.
    """
    tenant = Tenant(
        id=new_id("ten_"),
        name=name,
        tenant_class=tenant_class,
        weight=weight,
        token_quota=token_quota,
        max_jobs=max_jobs,
    )
    session.add(tenant)
    session.flush()
    return tenant


def find(session: Session, name: str) -> Tenant | None:
    """The tenant called `name`."""
    return session.scalar(select(Tenant).where(Tenant.name == name))


def create_key(session: Session, tenant_id: str) -> tuple[ApiKey, str]:
    """A new key's row, and the secret, which cannot be had again."""
    secret = new_key()
    row = ApiKey(id=new_id("key_"), tenant_id=tenant_id, hint=secret[:HINT_CHARS], hash=_hash(secret))
    session.add(row)
    session.flush()
    return row, secret


def revoke_key(session: Session, key_id: str) -> bool:
    """Ends the key at once. False: there is no such key, or it was revoked before."""
    live = update(ApiKey).where(ApiKey.id == key_id, ApiKey.revoked_at.is_(None)).values(revoked_at=func.now())
    return session.execute(live.returning(ApiKey.id)).first() is not None


def authenticate(session: Session, secret: str) -> Tenant | None:
    """The tenant whose key `secret` is, or None: a wrong and a revoked key look the same.

    The lookup is by hash of a 256-bit random secret, so its timing tells nothing of any other key.
    """
    digest = _hash(secret)
    security.present(session, digest)
    found = session.execute(
        select(ApiKey.hash, Tenant)
        .join(Tenant, Tenant.id == ApiKey.tenant_id)
        .where(ApiKey.hash == digest, ApiKey.revoked_at.is_(None))
    ).first()
    if found is None or not hmac.compare_digest(found[0], digest):
        return None
    tenant: Tenant = found[1]
    return tenant


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode("utf-8", "surrogatepass")).digest()
