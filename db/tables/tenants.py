"""Tenants and the keys that speak for them."""

from datetime import datetime

from sqlalchemy import ARRAY, BigInteger, CheckConstraint, Float, ForeignKey, Integer, String, text
from sqlalchemy.orm import Mapped, mapped_column

from db.columns import Base, now, one_of

KEY_SCOPES = ("tenant", "read", "operator")
RIGHTS = ("train", "serve", "read")


class Tenant(Base):
    __tablename__ = "tenants"
    id: Mapped[str] = mapped_column(primary_key=True)  # ten_…
    name: Mapped[str] = mapped_column(unique=True)
    tenant_class: Mapped[str] = mapped_column(server_default="standard")  # the only tenant label metrics may carry
    weight: Mapped[float] = mapped_column(Float, server_default=text("1"))  # share of scored tokens
    token_quota: Mapped[int | None] = mapped_column(BigInteger)  # scored tokens in all; null is unlimited
    spent_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # scored by jobs that have ended
    max_jobs: Mapped[int] = mapped_column(Integer, server_default=text("1000"))  # not ended at one time
    max_bytes: Mapped[int | None] = mapped_column(BigInteger)  # of files and results; null: the setting's default
    max_running: Mapped[int | None] = mapped_column(Integer)  # leased at one time; null is unlimited
    daily_tokens: Mapped[int | None] = mapped_column(BigInteger)  # scored tokens a day (UTC); null is unlimited
    serve_quota: Mapped[int | None] = mapped_column(BigInteger)  # served tokens in all; null is unlimited
    daily_serve_tokens: Mapped[int | None] = mapped_column(BigInteger)  # served tokens a day (UTC); null is unlimited
    served_tokens: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))  # of prompts and answers, in all
    created_at: Mapped[datetime] = now()
    __table_args__ = (
        CheckConstraint("weight > 0", name="weight"),
        CheckConstraint("max_jobs >= 0", name="max_jobs"),
        CheckConstraint("max_bytes >= 0", name="max_bytes"),
        CheckConstraint("max_running > 0 AND daily_tokens >= 0", name="share"),
        CheckConstraint("serve_quota >= 0 AND daily_serve_tokens >= 0 AND served_tokens >= 0", name="serving"),
    )


class ApiKey(Base):
    """A key speaks for its tenant: whole (`tenant`), or reading only (`read`). An operator's speaks for none.

    Where `scopes` are given they say what it may, and `scope` what a release that knows none of them takes it for.
    """

    __tablename__ = "api_keys"
    id: Mapped[str] = mapped_column(primary_key=True)  # key_…
    tenant_id: Mapped[str | None] = mapped_column(ForeignKey("tenants.id", ondelete="CASCADE"), index=True)
    hint: Mapped[str]  # the key's first characters, to tell keys apart
    hash: Mapped[bytes] = mapped_column(unique=True)  # SHA-256 of the whole key; the key itself is random, 256 bits
    created_at: Mapped[datetime] = now()
    revoked_at: Mapped[datetime | None]
    scope: Mapped[str] = mapped_column(server_default="tenant")
    scopes: Mapped[list[str] | None] = mapped_column(ARRAY(String))  # of RIGHTS; null: what `scope` says
    name: Mapped[str | None]  # what its owner calls it
    expires_at: Mapped[datetime | None]
    last_used_at: Mapped[datetime | None]  # to about a minute
    __table_args__ = (
        CheckConstraint(one_of("scope", KEY_SCOPES), name="scope"),
        CheckConstraint(
            f"scopes IS NULL OR (scopes <@ ARRAY[{', '.join(map(repr, RIGHTS))}]::varchar[] AND cardinality(scopes) > 0"
            " AND scope <> 'operator')",
            name="scopes",
        ),
        CheckConstraint("(scope = 'operator') = (tenant_id IS NULL)", name="only_operators_have_no_tenant"),
    )
