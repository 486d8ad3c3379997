"""`onward audit`: who changed what, of all tenants. For operators: it goes to the database."""

import json
from typing import Annotated, Any

import typer
from sqlalchemy import Select, func, literal, select

from cli import show
from cli.admin import database, settings, tenant_of
from cli.keys import lasting
from db import audit as entries
from db.tables import Audit

FIELDS = ("id", "at", "tenant_id", "actor", "action", "object", "request", "data")


def audit(
    tenant: Annotated[str | None, typer.Option(help="Name or id.")] = None,
    actor: Annotated[str | None, typer.Option(help="A key's or worker's id, or operator:NAME.")] = None,
    action: Annotated[str | None, typer.Option(help="Such as job.cancel, or all of a kind: job.")] = None,
    subject: Annotated[str | None, typer.Option("--object", help="The id of what was changed.")] = None,
    request: Annotated[str | None, typer.Option(help="The x-request-id of the answer.")] = None,
    since: Annotated[str | None, typer.Option(metavar="TIME", help="No older than, such as 24h.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 100,
    prune: Annotated[bool, typer.Option("--prune", help="Delete what ONWARD_AUDIT_DAYS no longer keeps.")] = False,
    as_json: show.Json = False,
) -> None:
    """The audit log: every change of tenants, keys, files, jobs and adapters, newest first."""
    if prune:
        return _prune(as_json)
    same = {Audit.actor: actor, Audit.object: subject, Audit.request: request}
    wanted = select(Audit).where(*(column == value for column, value in same.items() if value is not None))
    if action is not None:
        wanted = wanted.where((Audit.action == action) | Audit.action.startswith(f"{action}.", autoescape=True))
    if since is not None:
        wanted = wanted.where(Audit.at > func.clock_timestamp() - literal(lasting(since)))
    found = _read(wanted, tenant, limit)
    if as_json:
        return show.as_json(found)
    columns = ["at", "tenant", "actor", "action", "object", "request", "data"]
    return show.table(columns, map(_line, found), empty="nothing was changed")


def _read(wanted: Select[Audit], tenant: str | None, limit: int) -> list[dict[str, Any]]:
    with database() as session:
        if tenant is not None:
            wanted = wanted.where(Audit.tenant_id == tenant_of(session, tenant).id)
        rows = session.scalars(wanted.order_by(Audit.at.desc(), Audit.id.desc()).limit(limit))
        return [{name: getattr(row, name) for name in FIELDS} for row in rows]


def _prune(as_json: bool) -> None:
    """One transaction after another, until nothing is left to delete."""
    gone, more = 0, True
    while more:
        with database() as session:
            now = entries.prune(session, settings().audit_days)
        gone, more = gone + now, now == entries.PRUNED_AT_ONCE
    return show.as_json({"deleted": gone}) if as_json else show.out.print(f"{gone} entries deleted")


def _line(entry: dict[str, Any]) -> tuple[str, ...]:
    at = show.when(entry["at"].timestamp())
    words = (entry["tenant_id"] or "-", entry["actor"], entry["action"], entry["object"], entry["request"] or "-")
    return at, *map(show.text, (*words, json.dumps(entry["data"]) if entry["data"] else "-"))
