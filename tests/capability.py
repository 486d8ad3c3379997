"""Tests of what this machine's processor lacks are skipped for that reason, and the run's last lines count them."""

from collections import Counter
from typing import Any

import pytest

LACKS = "this processor lacks it: "


def need(why: str | None) -> None:
    """Skips the test where `why` says what is missing, as the code under test was told at run time."""
    if why is not None:
        pytest.skip(LACKS + why)


@pytest.hookimpl(trylast=True)
def pytest_terminal_summary(terminalreporter: Any) -> None:
    """A line for each missing capability; none where nothing was skipped for one."""
    skipped = terminalreporter.stats.get("skipped", ())
    reasons = (report.longrepr[2].removeprefix("Skipped: ") for report in skipped)
    lacking = Counter(reason.removeprefix(LACKS) for reason in reasons if reason.startswith(LACKS))
    for why, tests in lacking.most_common():
        terminalreporter.write_line(f"{tests} skipped, {LACKS}{why}")
