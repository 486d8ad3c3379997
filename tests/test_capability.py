"""What a run says of the tests that it skipped for a missing capability."""

import subprocess
import sys

BODY = """
import pytest
from tests.capability import need

@pytest.mark.parametrize("why", {reasons})
def test_it(why):
    need(why)
"""


def said(tmp_path, reasons):
    (tmp_path / "test_it.py").write_text(BODY.format(reasons=reasons))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "tests.capability", "-p", "no:cacheprovider"]
    done = subprocess.run([*command, str(tmp_path / "test_it.py")], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()


def test_the_last_lines_count_what_was_skipped_for_each_missing_capability(tmp_path):
    *_, first, second, total = said(tmp_path, ["no tiles", None, "no wings", "no tiles"])
    assert first == "2 skipped, this processor lacks it: no tiles"
    assert second == "1 skipped, this processor lacks it: no wings"
    assert total.startswith("1 passed, 3 skipped")


def test_nothing_is_said_where_nothing_was_lacking(tmp_path):
    assert not any("lacks" in line for line in said(tmp_path, [None, None]))
