"""The operator's commands: tenants, migrations. They go to the database, so they work before any API runs."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from psycopg.errors import InsufficientPrivilege
from pydantic import ValidationError
from pydantic_settings import SettingsError
from sqlalchemy import select, text
from sqlalchemy.exc import IntegrityError, OperationalError, ProgrammingError
from sqlalchemy.orm import Session

from cli import beside, show
from cli.client import Failure, home, other_home, service, starting
from db import audit, security, tables
from db.session import sessions
from db.settings import Settings
from db.tenant import keys as rows

tenants = typer.Typer(no_args_is_help=True)
keys = typer.Typer(no_args_is_help=True)
Quota = Annotated[int | None, typer.Option(help="Scored tokens in all; none is unlimited.")]
MaxRunning = Annotated[int | None, typer.Option(help="Jobs that run at one time; none is unlimited.")]
DailyTokens = Annotated[int | None, typer.Option(help="Scored tokens a day, UTC; none is unlimited.")]
ServeQuota = Annotated[int | None, typer.Option(help="Served tokens in all; none is unlimited.")]
DailyServe = Annotated[int | None, typer.Option(help="Served tokens a day, UTC; none is unlimited.")]
MaxBytes = Annotated[int | None, typer.Option(help="Its files and results; none is the API's setting.")]
LIFTED = {
    "quota": "token_quota",
    "max-running": "max_running",
    "daily-tokens": "daily_tokens",
    "max-bytes": "max_bytes",
    "serve-quota": "serve_quota",
    "daily-serve-tokens": "daily_serve_tokens",
}


def settings() -> Settings:
    """ONWARD_* variables; for what they leave open, the service that runs in this home."""
    here = service()
    for name in ("database_url", "redis_url", "models"):
        if name in here:  # into the environment: whatever reads settings in this process shall find the same
            value = here[name]
            os.environ.setdefault(f"ONWARD_{name.upper()}", value if isinstance(value, str) else json.dumps(value))
    return Settings(home=home())


@contextmanager
def database() -> Iterator[Session]:
    """One transaction on the database of `settings()`. Raises Failure where policies would hide what it asks."""
    with sessions(settings().database_url).begin() as session:
        if not security.operates(session):
            hint = (
                "set ONWARD_DATABASE_URL to the role that migrates: those of API and workers see one tenant at a time"
            )
            raise Failure("this is an operator's command: it needs the role that owns the tables", hint)
        yield session


def explain(error: Exception) -> Failure | None:
    """The failure a person should read for an error of the settings or the database; None when it is none of ours."""
    if isinstance(error, SettingsError) or (isinstance(error, ValidationError) and error.title == Settings.__name__):
        return Failure(f"the settings (ONWARD_*) are wrong: {error}")
    if isinstance(error, OperationalError):
        if (early := starting()) is not None:
            return early
        hint = "set ONWARD_DATABASE_URL, or run this beside `onward up`"
        if "ONWARD_DATABASE_URL" not in os.environ and beside.elsewhere(home()):
            hint = other_home()
        return Failure(f"cannot reach the database: {str(error.orig).splitlines()[0]}", hint)
    if isinstance(error, ProgrammingError) and "does not exist" in str(error.orig):
        said = str(error.orig).splitlines()[0]
        return Failure(f"the database is not at this version: {said}", "`onward migrate` brings it there")
    return None


def tenant_of(session: Session, name: str) -> tables.Tenant:
    """The tenant called `name`, or whose id it is. Raises Failure where there is none."""
    found = rows.find(session, name) or session.get(tables.Tenant, name)
    if found is None:
        raise Failure(f"there is no tenant {name!r}", "`onward tenants list` shows them")
    return found


def migrate(as_json: show.Json = False) -> None:
    """Bring the database to this version's tables."""
    from migrations.roles import MissingRoles, UnsafeRoles, set_passwords
    from migrations.run import upgrade  # alembic, only here

    at = settings()
    given = {security.API: at.api_database_password, security.WORKER: at.worker_database_password}
    try:
        upgrade(at.database_url)
        set_passwords(at.database_url, {role: secret.get_secret_value() for role, secret in given.items() if secret})
    except (MissingRoles, UnsafeRoles) as error:
        raise Failure(str(error), "docs/operations.md says who may be what") from None
    except InsufficientPrivilege as error:  # whoever made the roles gave them theirs
        show.err.print(f"passwords of {security.API} and {security.WORKER} left as they are: {error}", markup=False)
    with database() as session:
        version = session.scalar(text("SELECT version_num FROM alembic_version"))
    return show.as_json({"version": version}) if as_json else show.out.print(f"the database is at {version}")


@tenants.command()
def create(
    name: str,
    tenant_class: Annotated[str, typer.Option("--class", help="The label its metrics carry.")] = "standard",
    weight: Annotated[float, typer.Option(help="Its share of scored tokens beside others.")] = 1.0,
    quota: Quota = None,
    max_running: MaxRunning = None,
    daily_tokens: DailyTokens = None,
    max_bytes: MaxBytes = None,
    serve_quota: ServeQuota = None,
    daily_serve_tokens: DailyServe = None,
    as_json: show.Json = False,
) -> None:
    """A new tenant."""
    limits: dict[str, Any] = {"token_quota": quota, "max_running": max_running, "daily_tokens": daily_tokens}
    limits |= {"max_bytes": max_bytes, "serve_quota": serve_quota, "daily_serve_tokens": daily_serve_tokens}
    try:
        with database() as session:
            tenant = rows.create(session, name, tenant_class=tenant_class, weight=weight, **limits)
    except IntegrityError as error:
        if "uq_" not in str(error.orig):
            raise Failure(f"refused by the database: {str(error.orig).splitlines()[0]}") from None
        raise Failure(f"there is a tenant {name!r} already", "`onward tenants list` shows them") from None
    return show.as_json(_tenant(tenant)) if as_json else show.out.print(f"{tenant.id}  {tenant.name}")


@tenants.command("set")
def set_(
    tenant: str,
    weight: Annotated[float | None, typer.Option(help="Its share of scored tokens beside others.")] = None,
    quota: Quota = None,
    max_jobs: Annotated[int | None, typer.Option(help="Jobs that have not ended at one time.")] = None,
    max_running: MaxRunning = None,
    daily_tokens: DailyTokens = None,
    max_bytes: MaxBytes = None,
    serve_quota: ServeQuota = None,
    daily_serve_tokens: DailyServe = None,
    unlimited: Annotated[list[str] | None, typer.Option(help="A limit to lift: " + ", ".join(LIFTED))] = None,
    as_json: show.Json = False,
) -> None:
    """Change a tenant's (name or id) share and limits, from its next slice and request on."""
    lifted = [LIFTED[name] for name in unlimited or () if name in LIFTED]
    if len(lifted) < len(unlimited or ()):
        raise Failure(f"only these can be unlimited: {', '.join(LIFTED)}")
    given = {"weight": weight, "token_quota": quota, "max_jobs": max_jobs, "max_running": max_running}
    given |= {"daily_tokens": daily_tokens, "max_bytes": max_bytes}
    given |= {"serve_quota": serve_quota, "daily_serve_tokens": daily_serve_tokens}
    try:
        with database() as session:
            found = tenant_of(session, tenant)
            changed = {column: value for column, value in given.items() if value is not None or column in lifted}
            for column, value in changed.items():
                setattr(found, column, value)
            if changed:
                audit.write(session, found.id, "tenant.change", found.id, changed)
    except IntegrityError as error:
        raise Failure(f"refused by the database: {str(error.orig).splitlines()[0]}") from None
    return show.as_json(_tenant(found)) if as_json else show.out.print(f"{found.id}  {found.name}")


@tenants.command("list")
def list_tenants(as_json: show.Json = False) -> None:
    """All tenants."""
    with database() as session:
        found = [_tenant(t) for t in session.scalars(select(tables.Tenant).order_by(tables.Tenant.created_at))]
    if as_json:
        return show.as_json(found)
    lines = (
        (
            *(t["id"], t["name"], t["class"], f"{t['weight']:g}", show.size(t["token_quota"]), str(t["max_jobs"])),
            show.size(t["max_bytes"]),
        )
        for t in found
    )
    columns = ["id", "name", "class", "weight>", "quota>", "jobs>", "bytes>"]
    return show.table(columns, lines, empty="no tenants yet")


def _tenant(tenant: tables.Tenant) -> dict[str, Any]:
    return {
        "id": tenant.id,
        "name": tenant.name,
        "class": tenant.tenant_class,
        "weight": tenant.weight,
        "token_quota": tenant.token_quota,
        "max_jobs": tenant.max_jobs,
        "max_bytes": tenant.max_bytes,
        "max_running": tenant.max_running,
        "daily_tokens": tenant.daily_tokens,
        "serve_quota": tenant.serve_quota,
        "daily_serve_tokens": tenant.daily_serve_tokens,
        "served_tokens": tenant.served_tokens,
        "created_at": tenant.created_at,
    }
