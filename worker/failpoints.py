"""Deliberate death or sleep at a named point, for the fault tests only: the one place that reads ONWARD_FAULT."""

import os
import signal
import time
from collections import Counter

SLOW = 0.02
_passed: Counter[str] = Counter()


def point(name: str, *those: str) -> None:
    """Kill this process, with no clean-up, at the n-th pass of the point named in ONWARD_FAULT ("name" or "name:n").

    With "name:n:stop" it is not killed but stopped (SIGSTOP), once, until somebody lets it go on (SIGCONT). With
    "name:n:raise" the n-th pass raises RuntimeError, and with "name:n:slow" each from there on takes SLOW seconds. With
    "name:n:kill:id" only passes count in which `id` is one of `those` who pass. A process started without ONWARD_FAULT
    passes through; production never sets it.
    """
    wanted, _, when = os.environ.get("ONWARD_FAULT", "").partition(":")
    if wanted != name:
        return
    nth, how, whose, *_ = [*when.split(":"), "", "", ""]
    if whose and whose not in those:
        return
    _passed[name] += 1
    if how == "stop":
        if _passed[name] == int(nth):
            os.kill(os.getpid(), signal.SIGSTOP)
    elif how == "raise":
        if _passed[name] == int(nth):
            raise RuntimeError(f"ONWARD_FAULT at {name}")
    elif how == "slow":
        time.sleep(SLOW * (_passed[name] >= int(nth)))
    elif _passed[name] >= int(nth or 1):
        os._exit(137)
