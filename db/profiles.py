"""Profiles as rows: read by whoever may read the database, written by an operator and never changed. Knows no tenant
and nothing of what is in a file."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from sqlalchemy import select
from sqlalchemy.orm import Session

from db.contract.methods.profiled import ProfileKind
from db.contract.profiles import Profiled
from db.tables import Profile

HASH: Final = re.compile(r"[0-9a-f]{64}")


def get(session: Session, sha256: str) -> Profile | None:
    """The profile of this hash (hex), its bytes apart."""
    return session.get(Profile, sha256)


def named(session: Session, sha256: str) -> Profiled | None:
    """What it belongs to; None where there is none, and for what is no hash at all."""
    row = get(session, sha256) if HASH.fullmatch(sha256) else None
    return None if row is None else Profiled(row.sha256, cast(ProfileKind, row.kind), row.base, row.layout)


def content(session: Session, sha256: str) -> bytes | None:
    """Its file."""
    return session.scalar(select(Profile.data).where(Profile.sha256 == sha256))


def every(session: Session, base: str | None = None) -> Sequence[Profile]:
    """All, or those of a base (its fingerprint), in the order in which they came."""
    wanted = select(Profile).order_by(Profile.created_at, Profile.sha256)
    return session.scalars(wanted if base is None else wanted.where(Profile.base == base)).all()


def add(session: Session, of: Profiled, about: Mapping[str, Any], data: bytes) -> bool:
    """Keeps a file whose content was checked; False where it is there already."""
    if get(session, of.sha256) is not None:
        return False
    row = Profile(
        sha256=of.sha256, kind=of.kind, base=of.base, layout=of.layout, about=dict(about), bytes=len(data), data=data
    )
    session.add(row)
    session.flush()
    return True
