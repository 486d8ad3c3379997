"""`onward keys`: made, shown once, listed, rotated, revoked. For operators: they go to the database."""

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, get_args

import typer
from sqlalchemy import select

from cli import show
from cli.admin import database, tenant_of
from cli.client import Failure
from db.tables import ApiKey
from db.tenant import keys

app = typer.Typer(no_args_is_help=True)
UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}
LONGEST = timedelta(days=36_500)  # beyond it the database's calendar would end
UNKNOWN = "`onward keys list` shows their ids"


def lasting(said: str) -> timedelta:
    """`90d`, `24h`, `30m`, `10s` or `0`. Raises Failure for anything else."""
    match = re.fullmatch(r"(\d{1,9})([smhd])|0", said)
    found = timedelta(**{UNITS[match[2]]: int(match[1])}) if match and match[2] else timedelta()
    if match is None or found > LONGEST:
        raise Failure(f"{said!r} is no time", "such as 90d, 24h, 30m")
    return found


def _rights(said: str) -> set[keys.Right]:
    """`train,serve` as what a key may. Raises Failure."""
    known: dict[str, keys.Right] = {right: right for right in get_args(keys.Right)}
    named = [part.strip() for part in said.split(",") if part.strip()]
    if not named or (wrong := next((name for name in named if name not in known), None)) is not None:
        raise Failure(f"{wrong if named else said!r} is no scope", f"of {', '.join(known)}, commas between them")
    return {known[name] for name in named}


@app.command()
def create(
    tenant: Annotated[str | None, typer.Argument(help="Name or id; none for scope operator.")] = None,
    scope: Annotated[keys.Scope, typer.Option(help="read: GET only; operator: of no tenant, for audits.")] = "tenant",
    scopes: Annotated[str | None, typer.Option(help="In place of --scope, of train,serve,read: what it may.")] = None,
    name: Annotated[str | None, typer.Option(help="What to call it in lists.")] = None,
    expires: Annotated[str | None, typer.Option(metavar="TIME", help="Such as 90d; it does not end otherwise.")] = None,
    as_json: show.Json = False,
) -> None:
    """A new key. It is shown once."""
    if (tenant is None) != (scope == "operator"):
        raise Failure("a key is of a tenant, or of scope operator and of none", "onward keys create TENANT")
    rights = _rights(scopes) if scopes is not None else None
    if rights is not None and scope != "tenant":
        raise Failure("--scope and --scopes say the same in two ways", "keep --scopes")
    lasts = lasting(expires) if expires is not None else None
    if lasts is not None and not lasts:
        raise Failure("a key that ends at once opens nothing", "such as --expires 90d")
    with database() as session:
        owner = tenant_of(session, tenant).id if tenant is not None else None
        row, secret = keys.create_key(session, owner, scope=scope, name=name, lasts=lasts, rights=rights)
    _tell(row, secret, as_json)


@app.command()
def rotate(
    key_id: str,
    grace: Annotated[str, typer.Option(metavar="TIME", help="How long the old one still opens.")] = "24h",
    as_json: show.Json = False,
) -> None:
    """A new key in place of one, by its id: of the same scope and for as long. The old one ends after the grace."""
    with database() as session:
        made = keys.rotate_key(session, key_id, lasting(grace))
        if made is None:
            raise Failure(f"there is no live key {key_id!r}", UNKNOWN)
    _tell(*made, as_json)


@app.command()
def revoke(key_id: str, as_json: show.Json = False) -> None:
    """End a key at once, by its id (not by the key itself)."""
    with database() as session:
        if not keys.revoke_key(session, key_id):
            raise Failure(f"there is no live key {key_id!r}", UNKNOWN)
    return show.as_json({"id": key_id, "revoked": True}) if as_json else show.out.print(f"revoked {key_id}")


@app.command("list")
def list_(
    tenant: Annotated[str | None, typer.Argument(help="Name or id; all keys, operators' too, without one.")] = None,
    as_json: show.Json = False,
) -> None:
    """Keys: their first characters, never the keys."""
    with database() as session:
        wanted = select(ApiKey).order_by(ApiKey.created_at, ApiKey.id)
        if tenant is not None:
            wanted = wanted.where(ApiKey.tenant_id == tenant_of(session, tenant).id)
        found = [_shown(row) for row in session.scalars(wanted)]
    if as_json:
        return show.as_json(found)
    columns = ["id", "key", "tenant", "scope", "name", "created", "expires", "last used", "state"]
    return show.table(columns, map(_line, found), empty="no keys yet")


def _tell(row: ApiKey, secret: str, as_json: bool) -> None:
    if as_json:
        return show.as_json(
            {"id": row.id, "key": secret, "scope": row.scope, "scopes": row.scopes, "expires_at": row.expires_at}
        )
    return typer.echo(secret)


def _shown(row: ApiKey) -> dict[str, Any]:
    names = (
        "id",
        "hint",
        "tenant_id",
        "scope",
        "scopes",
        "name",
        "created_at",
        "expires_at",
        "last_used_at",
        "revoked_at",
    )
    return {name: getattr(row, name) for name in names}


def _line(key: dict[str, Any]) -> tuple[str, ...]:
    ended = key["expires_at"] is not None and key["expires_at"] <= datetime.now(UTC)
    state = "revoked" if key["revoked_at"] else "expired" if ended else "live"
    owner, name = key["tenant_id"] or "-", key["name"] or "-"
    times = (_when(key[field]) for field in ("created_at", "expires_at", "last_used_at"))
    return (
        key["id"],
        key["hint"] + "…",
        owner,
        ",".join(key["scopes"] or [key["scope"]]),
        show.text(name),
        *times,
        state,
    )


def _when(moment: datetime | None) -> str:
    return show.when(moment.timestamp() if moment is not None else None)
