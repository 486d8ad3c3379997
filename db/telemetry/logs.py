"""How every process speaks: lines for people on a terminal, JSON for machines elsewhere. Knows no request and no job.

A line carries what its context binds (request, slice) or its call names (job, step), and the trace it belongs to.
"""

import logging
import sys
import threading
import traceback
from typing import Any, Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

from db.hidden import redacted
from db.telemetry import traces

Format = Literal["auto", "json", "console"]
OURS = ("api", "db", "worker")


def configure(component: str, form: Format = "auto", level: str = "INFO") -> None:
    """Send structlog and the standard library's loggers to stderr in one format. Call once, before the first line.

    `component` names the process in every JSON line. Libraries speak from WARNING on, ours from `level` on. No line
    shows a secret that is known, whoever wrote it; nor does the traceback of a process or thread that dies.
    """
    number = logging.getLevelNamesMapping()[level]
    for_people = sys.stderr.isatty() if form == "auto" else form == "console"
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_logger_name,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        _trace,
    ]
    structlog.configure(
        processors=[
            *shared,
            structlog.processors.format_exc_info,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
    _speak(shared, _for_people() if for_people else _for_machines(component))
    sys.excepthook = _die
    threading.excepthook = lambda told: _die(told.exc_type, told.exc_value, told.exc_traceback)
    for name in OURS:
        logging.getLogger(name).setLevel(number)


def _for_people() -> list[Processor]:
    # Plain: rich's tracebacks print the locals of every frame, and a tenant's rows are among them.
    return [structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)]


def _for_machines(component: str) -> list[Processor]:
    def named(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
        return {"component": component, **line}

    return [named, structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]


class _Redacting(structlog.stdlib.ProcessorFormatter):
    """The last word on every line: messages of libraries, tracebacks and all."""

    def format(self, record: logging.LogRecord) -> str:
        return redacted(super().format(record))


def _die(kind: Any, error: Any, trace: Any) -> None:
    print(redacted("".join(traceback.format_exception(kind, error, trace))), end="", file=sys.stderr)


def _speak(shared: list[Processor], last: list[Processor]) -> None:
    """The root logger's one way out, for libraries' lines too."""
    out = logging.StreamHandler(sys.stderr)
    processors = [structlog.stdlib.ProcessorFormatter.remove_processors_meta, *last]
    out.setFormatter(_Redacting(foreign_pre_chain=shared, processors=processors))
    root = logging.getLogger()
    root.handlers[:] = [out]
    root.setLevel(logging.WARNING)


def _trace(_: WrappedLogger, __: str, line: EventDict) -> EventDict:
    trace_id = traces.trace_id()
    if trace_id:
        line["trace"] = trace_id
    return line
