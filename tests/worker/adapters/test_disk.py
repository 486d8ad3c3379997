"""A disk that takes results is told from one that does not; what a killed worker left goes, what one holds stays."""

import pytest

from worker.adapters import disk


def test_a_disk_that_works_is_left_as_it_was(tmp_path):
    disk.try_out(tmp_path / "home")
    assert {x.name for x in (tmp_path / "home").iterdir()} == {"adapters", "snapshots"}
    assert [x for folder in (tmp_path / "home").iterdir() for x in folder.iterdir()] == []


def test_a_disk_that_refuses_is_told(tmp_path):
    (tmp_path / "snapshots").write_text("in the way")
    with pytest.raises(OSError, match="snapshots"):
        disk.try_out(tmp_path)


def test_what_a_killed_worker_was_writing_is_reaped_unless_somebody_holds_the_job(tmp_path):
    adapters, snapshots = tmp_path / "adapters", tmp_path / "snapshots"
    for job in ("ftjob-dead", "ftjob-held", "ftjob-strange"):
        (adapters / f".{job}.x1y2").mkdir(parents=True)
        (adapters / f".{job}.x1y2" / "adapter_model.safetensors").write_text("half")
        (adapters / job).mkdir()
        (snapshots / job).mkdir(parents=True)
        (snapshots / job / ".1234").write_text("half")
        (snapshots / job / "000000500.safetensors").write_text("whole")
    asked: list[set[str]] = []

    def unheld(job_ids):
        asked.append(set(job_ids))
        return {"ftjob-dead"}

    assert disk.reap(tmp_path, unheld) == 2
    assert asked == [{"ftjob-dead", "ftjob-held", "ftjob-strange"}]
    left = {str(x.relative_to(tmp_path)) for x in tmp_path.glob("*/.*")} | {
        str(x.relative_to(tmp_path)) for x in tmp_path.glob("*/*/.*")
    }
    assert left == {
        "adapters/.ftjob-held.x1y2",
        "adapters/.ftjob-strange.x1y2",
        "snapshots/ftjob-held/.1234",
        "snapshots/ftjob-strange/.1234",
    }
    assert (adapters / "ftjob-dead").is_dir()
    assert (snapshots / "ftjob-dead" / "000000500.safetensors").exists()


def test_where_nothing_is_left_nobody_is_asked(tmp_path):
    def unheld(job_ids):
        raise AssertionError(job_ids)

    assert disk.reap(tmp_path / "new", unheld) == 0
