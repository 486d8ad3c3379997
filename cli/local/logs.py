"""Where a child's words go: a file that is set aside by day and by size. Knows lines, no process's meaning."""

import logging
import threading
import time
from contextlib import suppress
from logging.handlers import BaseRotatingHandler
from pathlib import Path
from typing import IO

LOG_BYTES = 10 << 20  # of a file, before it is set aside
KEPT = 10  # files set aside of one component; the oldest goes first
KEPT_DAYS = 14.0


class Kept(BaseRotatingHandler):
    """`path` has what was said last. It is set aside as <name>.<time>.log once it holds `LOG_BYTES`, and at the first
    line of another day."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path), "a", encoding="utf-8", errors="replace")
        self._path = path
        self._day = time.strftime("%Y%m%d", time.localtime(path.stat().st_mtime))

    def shouldRollover(self, record: logging.LogRecord) -> bool:
        del record
        if time.strftime("%Y%m%d") != self._day:
            return True
        return self.stream is not None and self.stream.tell() >= LOG_BYTES

    def doRollover(self) -> None:
        if self.stream is not None:
            self.stream.close()
            self.stream = None  # the next line opens it again
        set_aside(self._path)
        self._day = time.strftime("%Y%m%d")

    def handleError(self, record: logging.LogRecord) -> None:
        """A full disk loses lines, and neither stops the child nor fills the terminal."""


def set_aside(path: Path) -> None:
    """Renames the log `path`, where it has a line, and drops what is too old or too many. Nothing where it is not."""
    if path.exists() and path.stat().st_size:
        stamp = time.strftime("%Y%m%d-%H%M%S", time.localtime(path.stat().st_mtime))
        aside, count = path.with_name(f"{path.stem}.{stamp}{path.suffix}"), 0
        while aside.exists():
            count += 1
            aside = path.with_name(f"{path.stem}.{stamp}-{count:02d}{path.suffix}")
        path.rename(aside)
    old = sorted(path.parent.glob(f"{path.stem}.[0-9]*{path.suffix}"), key=lambda one: one.stat().st_mtime)
    for number, one in enumerate(reversed(old)):
        if number >= KEPT or time.time() - one.stat().st_mtime > KEPT_DAYS * 86_400:
            one.unlink(missing_ok=True)


def copied(stream: IO[bytes], path: Path) -> threading.Thread:
    """A thread that writes the lines of `stream` to the log `path` until the last of them; it is begun."""
    log = Kept(path)

    def copy() -> None:
        with stream, suppress(ValueError):  # closed while it is read
            for line in stream:
                log.emit(logging.makeLogRecord({"msg": line.decode(errors="replace").rstrip("\n")}))
        log.close()

    thread = threading.Thread(target=copy, name=f"log of {path.stem}", daemon=True)
    thread.start()
    return thread
