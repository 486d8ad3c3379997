"""The guard compares ratios of two runs, as files on disk, and says by its exit status whether one worsened."""

import copy
import json

import pytest

from bench.report.guard import compared, main

RUN = {
    "compare": {
        "sentences": {
            "contenders": {
                "official style": {
                    "seconds a step": {"median": 12.0},
                    "times onward's step": {"median": 4.0},
                    "fraction of the floor": {"median": 0.2},
                },
                "onward": {"times onward's step": {"median": 1.0}, "fraction of the floor": {"median": 0.8}},
            }
        }
    },
    "memory": {"sentences": {"official style": {"times onward's": 1.2, "added bytes": 9}}},
    "service": {"service over bare": {"median": 1.02}, "bare engine seconds a step": {"median": 3.0}},
}


def changed(value, *path):
    run = copy.deepcopy(RUN)
    inner = run
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return run


@pytest.fixture
def exits(tmp_path, capsys):
    """Exit status and output of the guard's command on two runs."""

    def command(committed, fresh):
        files = [tmp_path / "fresh.json", tmp_path / "committed.json"]
        for file, run in zip(files, (fresh, committed), strict=True):
            file.write_text(json.dumps(run))
        return main([str(file) for file in files]), capsys.readouterr().out

    return command


CONTENDERS = ("compare", "sentences", "contenders")


@pytest.mark.parametrize(
    "path,good,bad",
    [
        ((*CONTENDERS, "official style", "times onward's step", "median"), 3.3, 3.1),
        ((*CONTENDERS, "onward", "fraction of the floor", "median"), 0.65, 0.63),
        (("memory", "sentences", "official style", "times onward's"), 0.97, 0.95),
        (("service", "service over bare", "median"), 1.27, 1.28),
    ],
)
def test_a_ratio_may_worsen_by_less_than_a_quarter(path, good, bad, exits):
    code, out = exits(RUN, changed(good, *path))
    assert code == 0, out
    code, out = exits(RUN, changed(bad, *path))
    assert code == 1
    (line,) = [line for line in out.splitlines() if "WORSE" in line]
    assert path[-2] in line or path[-1] in line


def test_times_and_a_baselines_own_floor_are_not_compared():
    names = {v.name for v in compared(RUN, RUN)}
    assert not any("seconds" in n or "bytes" in n for n in names)
    assert not any("official style" in n and "floor" in n for n in names)
    slower = changed(120.0, *CONTENDERS, "official style", "seconds a step", "median")
    assert not any(v.failed for v in compared(RUN, slower))


def test_what_got_better_passes():
    assert not any(
        v.failed for v in compared(RUN, changed(9.0, *CONTENDERS, "official style", "times onward's step", "median"))
    )


def test_a_ratio_that_is_no_number_fails():
    broken = changed(float("nan"), "service", "service over bare", "median")
    assert [v.name for v in compared(RUN, broken) if v.failed] == ["service / service over bare / median"]


def test_a_quick_run_is_compared_on_what_it_has(exits):
    quick = {"service": RUN["service"]}
    assert len(compared(RUN, quick)) == 1
    assert exits(RUN, quick)[0] == 0
    assert exits(RUN, {"replay": {"seconds": 1}})[0] == 2
