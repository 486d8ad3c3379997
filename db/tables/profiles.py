"""Profiles: files made once for a base, which every tenant of it may name. Of no tenant."""

from datetime import datetime
from typing import Any

from sqlalchemy import CheckConstraint, Index, Integer
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, one_of
from db.contract.profiles import KINDS


class Profile(Base):
    """A safetensors file as it is, by the SHA-256 (hex) of its bytes; nothing of a row is ever changed, and none goes:
    adapters are rebuilt from them. `base` and `layout` are fingerprints, `about` is what the file says of itself."""

    __tablename__ = "profiles"
    sha256: Mapped[str] = mapped_column(primary_key=True)
    kind: Mapped[str]
    base: Mapped[str]
    layout: Mapped[str]
    about: Mapped[dict[str, Any]]
    data: Mapped[bytes] = mapped_column(deferred=True)
    bytes: Mapped[int] = mapped_column(Integer)
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        Index("ix_profiles_base", "base"),
        CheckConstraint(one_of("kind", KINDS), name="kind"),
        CheckConstraint("bytes > 0 AND bytes = octet_length(data)", name="whole"),
        CheckConstraint("sha256 = encode(sha256(data), 'hex')", name="named_by_its_bytes"),
    )
