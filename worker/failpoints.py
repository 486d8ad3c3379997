"""Deliberate death at a named point, for the fault tests only: the one place that reads ONWARD_FAULT."""

import os
from collections import Counter

_passed: Counter[str] = Counter()


def point(name: str) -> None:
    """Kill this process, with no clean-up, at the n-th pass of the point named in ONWARD_FAULT ("name" or "name:n").

    A process started without ONWARD_FAULT passes through; production never sets it.
    """
    wanted, _, nth = os.environ.get("ONWARD_FAULT", "").partition(":")
    if wanted != name:
        return
    _passed[name] += 1
    if _passed[name] >= int(nth or 1):
        os._exit(137)
