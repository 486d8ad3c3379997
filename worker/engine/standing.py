"""How long training has stood because serving had the engine. Knows times only; who calls holds a lock."""

import time


class Standing:
    """Time that runs while serving is at work and somebody wants to train. `seconds` is for any thread to ask."""

    def __init__(self) -> None:
        self.wanted = 0  # acts under way or waiting
        self._serving = False
        self._stood: tuple[float, float | None] = 0.0, None  # seconds that are over; since when it runs, if it does

    @property
    def seconds(self) -> float:
        seconds, since = self._stood
        return seconds if since is None else seconds + time.monotonic() - since

    def serves(self, serving: bool) -> None:
        self._serving = serving
        self._tick()

    def want(self, more: int) -> None:
        self.wanted += more
        self._tick()

    def _tick(self) -> None:
        runs, since = self._serving and self.wanted > 0, self._stood[1]
        if runs != (since is not None):
            self._stood = self.seconds, time.monotonic() if runs else None
