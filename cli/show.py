"""What the command line prints: tables, JSON, numbers a person can read. Knows no API and no database."""

import json
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import Annotated, Any

import typer
from pydantic import BaseModel
from rich.console import Console
from rich.markup import escape
from rich.table import Table

Json = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]

# Into a pipe or a log, lines stay whole: there is no window to fit.
PIPE_WIDTH = None if "COLUMNS" in os.environ else 240
out = Console(highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
err = Console(stderr=True, highlight=False, width=None if sys.stderr.isatty() else PIPE_WIDTH)


STATE_STYLE = {
    "queued": "yellow",
    "validating_files": "yellow",
    "running": "cyan",
    "paused": "magenta",
    "succeeded": "green",
    "failed": "red",
    "cancelled": "dim",
}


def plain(value: Any) -> Any:
    """`value` as JSON knows it: pydantic models become dicts, wherever they are."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if isinstance(value, datetime):
        return value.isoformat()
    return value


def as_json(value: Any) -> None:
    """One JSON document on stdout, unwrapped and uncoloured."""
    typer.echo(json.dumps(plain(value), ensure_ascii=False, indent=2))


def table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, empty: str, title: str | None = None) -> None:
    """A table on stdout; the line `empty` where there are no rows. Columns whose name ends in > are right-aligned."""
    drawn = Table(title=title, box=None, pad_edge=False, header_style="bold", title_justify="left")
    for column in columns:
        number = column.endswith(">")
        drawn.add_column(column.rstrip(">"), justify="right" if number else "left", overflow="fold")
    for row in rows:
        drawn.add_row(*row)
    out.print(drawn if drawn.row_count else empty)


def pairs(rows: Iterable[tuple[str, str]]) -> None:
    """Names and values, one pair a line."""
    drawn = Table(box=None, show_header=False, pad_edge=False)
    drawn.add_column(style="dim")
    drawn.add_column(overflow="fold")
    for name, value in rows:
        drawn.add_row(name, value)
    out.print(drawn)


def text(value: str) -> str:
    """`value` in a table as it is: what looks like markup in it is none."""
    return escape(value)


def state(name: str) -> str:
    style = STATE_STYLE.get(name, "white")
    return f"[{style}]{name}[/]"


def when(seconds: float | None) -> str:
    """A Unix time as this machine's clock would write it."""
    if seconds is None:
        return "-"
    return datetime.fromtimestamp(seconds, UTC).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def size(count: float | None, unit: str = "") -> str:
    """12345 as 12.3k: counts of tokens and bytes, three digits are enough."""
    if count is None:
        return "-"
    for suffix in ("", "k", "M", "G"):
        if abs(count) < 1000 or suffix == "G":
            return f"{count:.0f}{unit}" if not suffix else f"{count:.1f}{suffix}{unit}"
        count /= 1000
    raise AssertionError("unreachable")


def span(seconds: float | None) -> str:
    """A duration: 7 s, 3 min 20 s, 2 h 05 min."""
    if seconds is None:
        return "-"
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def number(value: float | None, digits: int = 3) -> str:
    return "-" if value is None else f"{value:.{digits}f}"
