"""The components of one service, tended together, and what those beside it are told of them. Knows no component."""

import os
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from cli import beside
from cli.local.supervision import Supervised


class Board:
    """In the home from `enter` to `exit`: a command typed beside it finds what is still starting and what died."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.children: list[Supervised] = []
        self._phase: str | None = "starting"
        self._since = time.time()
        self._base_url: str | None = None
        self._told: beside.Up | None = None

    def __enter__(self) -> "Board":
        beside.register(self.home)
        self._tell()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        beside.forget(self.home)

    def begin(self, phase: str | None, base_url: str | None = None) -> None:
        """What the service does now; None: it is ready."""
        self._phase, self._since, self._base_url = phase, time.time(), base_url or self._base_url
        self._tell()

    def tend(self) -> None:
        for child in self.children:
            child.tend()
        self._tell()

    def _tell(self) -> None:
        pid = os.getpid()
        up = beside.Up(
            pid=pid,
            born=beside.born(pid),
            base_url=self._base_url,
            phase=self._phase,
            since=self._since,
            components=tuple(child.told() for child in self.children),
        )
        if up != self._told:
            with suppress(OSError):  # a full disk keeps nobody from being tended
                beside.write(self.home, up)
                self._told = up
