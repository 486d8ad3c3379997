"""`onward`: the command line. This file only lists the commands and turns failures into one line and a hint."""

import logging
import os
import sys
from typing import Any

import structlog
import typer
from rich.text import Text

from cli import adapters, admin, audit, chat, doctor, files, jobs, keys, methods, profiles, receipts
from cli.client import Failure, explain
from cli.demo import command
from cli.local import up
from cli.show import err
from db.hidden import redacted


class Edge(typer.core.TyperGroup):
    """The one place where an error becomes a line on stderr and exit code 1 (ONWARD_TRACEBACK=1 shows it whole)."""

    def invoke(self, ctx: Any) -> Any:
        quiet = structlog.make_filtering_bound_logger(logging.WARNING)
        structlog.configure(wrapper_class=quiet, logger_factory=structlog.PrintLoggerFactory(sys.stderr))
        try:
            return super().invoke(ctx)
        except Exception as error:
            failure = error if isinstance(error, Failure) else explain(error) or admin.explain(error)
            if failure is None or os.environ.get("ONWARD_TRACEBACK"):
                raise
            err.print(Text.assemble(("error: ", "red"), redacted(failure.message)), soft_wrap=True)
            if failure.hint:
                err.print(Text(f"hint: {failure.hint}", style="dim"), soft_wrap=True)
            raise typer.Exit(1) from None


app = typer.Typer(
    name="onward",
    cls=Edge,
    no_args_is_help=True,
    pretty_exceptions_show_locals=False,
    help="A self-hosted fine-tuning service: LoRA adapters trained with forward passes only.",
)
app.command("up")(up.up)
app.command("demo")(command.demo)
app.command("migrate")(admin.migrate)
app.command("doctor")(doctor.doctor)
app.command("audit")(audit.audit)
app.command("models")(files.models)
app.command("chat")(chat.chat)
app.command("methods")(methods.methods)
app.add_typer(jobs.app, name="jobs", help="Fine-tuning jobs.")
app.add_typer(files.app, name="files", help="Examples and results.")
app.add_typer(adapters.app, name="adapters", help="Trained adapters.")
app.add_typer(receipts.app, name="receipts", help="Adapters rebuilt and checked from a few kilobytes, anywhere.")
app.add_typer(profiles.app, name="profiles", help="Files made once for a base, which methods read.")
app.add_typer(admin.tenants, name="tenants", help="Tenants (operator: needs the database).")
app.add_typer(keys.app, name="keys", help="API keys (operator: needs the database).")
