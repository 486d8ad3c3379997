"""A row of each tenant in every table that has tenants, those of tables to come too. Knows the metadata."""

from datetime import UTC, date, datetime
from typing import Any

from sqlalchemy import Table, insert, select
from sqlalchemy.orm import Session

from db.security import TENANT
from db.tables import Base
from db.tenant import keys, uploads
from db.worker import journal
from db.worker.journal import Evaluated, Published, Step
from tests.db.inserted import a_claim, a_file, a_job, a_tenant, a_worker

__all__ = ("TABLES", "TENANT", "a_row_everywhere", "owner_of")
TABLES = [t for t in Base.metadata.sorted_tables if t.name == "tenants" or "tenant_id" in t.columns]


def owner_of(table: Table) -> Any:
    """The column that says whose a row is."""
    return table.c.id if table.name == "tenants" else table.c.tenant_id


def a_row_everywhere(session: Session) -> str:
    """A new tenant with a row in each of TABLES: jobs that ended, run and wait, their files and journal.

    The files' content has the tenant's id in it."""
    tenant = a_tenant(session)
    keys.create_key(session, tenant)
    worker = a_worker(session)
    secret = f'{{"prompt": "{tenant}", "completion": "b"}}\n'.encode()
    done, running, queued = (a_job(session, tenant, a_file(session, tenant, secret), steps=n) for n in (1, 10, 10))
    queued.request, queued.idempotency_key = {"metadata": {"secret": tenant}}, f"once-{tenant}"
    claim = a_claim(session, done, worker)
    journal.flush(session, claim, [Step(0, [0.5, 0.25], 7)], [Evaluated(0, 0.5, 1.0, 1, 3)], (0, 0.5))
    journal.finish(session, claim, Published(f"ft:{done.id}", 1, "0" * 64, "/x", b"tar", b"receipt"))
    a_claim(session, running, worker)
    upload = uploads.create(
        tenant, session, filename="a.jsonl", purpose="fine-tune", size=len(secret), expires_after=None
    )
    uploads.add(tenant, session, upload.id, [secret])
    session.flush()
    for table in TABLES:
        if session.execute(select(table).where(owner_of(table) == tenant)).first() is None:
            session.execute(insert(table).values(_made_up(session, table, tenant)))
    return tenant


def _made_up(session: Session, table: Table, tenant: str) -> dict[str, Any]:
    """A row of a table that the functions above do not write. Where its constraints refuse it, write one above."""
    row: dict[str, Any] = {"tenant_id": tenant}
    for key in table.foreign_key_constraints:
        wanted = select(*key.referred_table.columns)
        theirs = session.execute(wanted.where(owner_of(key.referred_table) == tenant)).mappings().first()
        assert theirs is not None, key.referred_table.name
        row |= {ours.name: theirs[one.column.name] for ours, one in zip(key.columns, key.elements, strict=True)}
    for column in table.columns:
        if column.name not in row and not column.nullable and column.server_default is None:
            kind = column.type.python_type
            if not (column.primary_key and kind is int and column.autoincrement is True):
                row[column.name] = {
                    str: f"x-{tenant}" if column.primary_key else "x",
                    datetime: datetime.now(UTC),
                    date: datetime.now(UTC).date(),
                    int: 1,
                    float: 1.0,
                    bool: True,
                    bytes: b"x",
                    dict: {},
                }.get(kind)
    return row
