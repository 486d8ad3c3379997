"""`make test` runs every test once, says what pytest would, and leaves nothing running."""

import os
import re
import signal
import subprocess
import sys

import pytest

from tests.side_by_side import ALONE, BESIDE, ROOT, arguments, within
from tests.waiting import HANG, alive, gone, until

GROUPS = (*BESIDE, ALONE)
SCRIPT = """
import sys
from pathlib import Path
from tests.side_by_side import Group, played
groups = Group("one", ("tests/one",)), Group("two", ("tests/two",)), Group("rest", ("tests",))
sys.exit(played(["-m", "not slow"], groups, Group("alone", ("tests/two/test_last.py",)), Path(sys.argv[1])))
"""
INI = '[tool.pytest.ini_options]\naddopts = "-q -p tests.capability"\nmarkers = ["slow: minutes long"]\n'


def chosen(asked: list[str], files: set[str]) -> set[str]:
    """As pytest chooses files: under the paths, and not under what is ignored."""
    ignored = [one.removeprefix("--ignore=") for one in asked if one.startswith("--ignore=")]
    paths = [one for one in asked if not one.startswith("--")]
    return {f for f in files if (f in paths or within(f, paths)) and not (f in ignored or within(f, ignored))}


def test_every_file_of_tests_is_in_one_group_and_every_path_is_there():
    files = {str(path.relative_to(ROOT)) for path in (ROOT / "tests").rglob("test_*.py")}
    groups = [chosen(arguments(group, GROUPS), files) for group in GROUPS]
    assert set.union(*groups) == files
    assert sum(len(group) for group in groups) == len(files)
    assert [path for group in GROUPS for path in group.paths if not (ROOT / path).exists()] == []
    assert all(groups)


@pytest.fixture
def begun(tmp_path):
    """Starts the script on files that say nothing but what is given: begun({"one/test_it.py": "..."}) -> process."""
    started: list[subprocess.Popen[str]] = []

    def begin(given: dict[str, str]) -> subprocess.Popen[str]:
        (tmp_path / "pyproject.toml").write_text(INI)
        quiet = [f"{folder}/test_it.py" for folder in ("one", "two", "rest")] + ["two/test_last.py"]
        for name, text in (dict.fromkeys(quiet, "def test_it(): pass") | given).items():
            (path := tmp_path / "tests" / name).parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        env = os.environ | {"PYTHONPATH": str(ROOT), "HERE": str(tmp_path)}
        env["PYTEST_DISABLE_PLUGIN_AUTOLOAD"] = "1"  # none of them is used here; four pytests a test are many imports
        with (tmp_path / "said").open("w") as out:
            command = [sys.executable, "-c", SCRIPT, str(tmp_path)]
            process = subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=env, cwd=ROOT)
        started.append(process)
        return process

    yield begin
    for process in started:
        process.kill()
        process.wait()


@pytest.fixture
def ended(begun, tmp_path):
    """The same, once it has ended: its exit status and the lines that it said."""

    def end(given: dict[str, str]) -> tuple[int, list[str]]:
        status = begun(given).wait(HANG)
        return status, (tmp_path / "said").read_text().splitlines()

    return end


def test_where_all_pass_the_last_line_is_pytests_own_for_all(ended):
    status, lines = ended({})
    assert status == 0
    assert re.fullmatch(r"4 passed in \d+\.\d\ds \(0:\d\d:\d\d\)", lines[-1])


MIXED = """
import pytest, warnings
from tests.capability import need
def test_good(): warnings.warn("w")
def test_bad(): assert 1 == 2, "{text}"
def test_lacks(): need("no tiles")
@pytest.mark.slow
def test_slow(): assert False
@pytest.fixture
def broken(): raise OSError
def test_error(broken): pass
"""


def test_what_fails_in_any_group_fails_the_run_and_is_told_whole_and_apart(ended):
    status, lines = ended({f"{name}/test_it.py": MIXED.format(text=f"of {name}") for name in ("one", "two")})
    assert status == 1
    counts = "2 failed, 4 passed, 2 skipped, 2 deselected, 2 warnings, 2 errors"
    assert lines[-1].startswith(f"{counts} in ")
    assert lines[-2] == "2 skipped, this processor lacks it: no tiles"
    whole = "\n".join(lines)
    for name in ("one", "two"):
        assert f"FAILED tests/{name}/test_it.py::test_bad" in whole
        held = [i for i, line in enumerate(lines) if f"of {name}" in line]
        begins = max(i for i, line in enumerate(lines[: held[0]]) if "= ERRORS =" in line)
        assert not any(" | " in line for line in lines[begins : held[-1]]), "another group's in the middle"


def test_a_group_that_dies_fails_the_run(ended):
    status, lines = ended({"one/test_it.py": "import os, signal\ndef test_it(): os.kill(os.getpid(), signal.SIGKILL)"})
    assert status == 1
    assert any("one | no closing line, status -9" in line for line in lines)
    assert lines[-1].startswith("3 passed in ")


MEETS = """
import os, time
from pathlib import Path
from tests.waiting import until
def test_it():
    (Path(os.environ["HERE"]) / "{mine}").touch()
    until((Path(os.environ["HERE"]) / "{other}").exists, "the other group's test")
"""


def test_two_groups_run_at_once_and_the_last_alone(ended):
    tests = {"one/test_it.py": MEETS.format(mine="a", other="b"), "two/test_it.py": MEETS.format(mine="b", other="a")}
    status, lines = ended(tests)
    assert status == 0, lines
    alone = next(i for i, line in enumerate(lines) if "alone | begins" in line)
    assert sum("| ended with status 0" in line for line in lines[:alone]) == 3


STAYS = """
import os, time
from pathlib import Path
import pytest
HERE = Path(os.environ["HERE"])
@pytest.fixture
def server():
    yield
    (HERE / "stopped").touch()
def test_it(server):
    (HERE / "new").write_text(str(os.getpid()))
    (HERE / "new").rename(HERE / "pid")
    time.sleep(90_000)
"""


@pytest.mark.parametrize("told", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_nothing_is_left_running_and_servers_are_stopped_where_it_is_interrupted(told, begun, tmp_path):
    process = begun({"one/test_it.py": STAYS})
    until((tmp_path / "pid").exists, "the test runs")
    pid = int((tmp_path / "pid").read_text())
    assert alive(pid)
    process.send_signal(told)
    assert process.wait(HANG) == (-told if told == signal.SIGKILL else 2)
    assert gone(pid)
    assert (tmp_path / "stopped").exists(), "a fixture's end was left out"


def test_arguments_are_one_pytests():
    command = [sys.executable, "-m", "tests.side_by_side", "-m", "not slow and not gpu"]
    own = ["tests/test_capability.py", "-k", "nothing_is_said"]
    done = subprocess.run([*command, *own], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert done.stdout.splitlines()[-1].startswith("1 passed, 1 deselected in ")
    assert " | " not in done.stdout
