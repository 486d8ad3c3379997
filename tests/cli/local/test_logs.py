"""A component's words are kept by size and by day, and not for ever."""

import io
import os
import time

from cli.local import logs
from cli.local.logs import KEPT, copied, set_aside
from tests.waiting import HANG


def said(path, *lines: str) -> None:
    thread = copied(io.BytesIO("".join(f"{line}\n" for line in lines).encode()), path)
    thread.join(HANG)


def aside(path) -> list[str]:
    files = sorted(path.parent.glob(f"{path.stem}.[0-9]*.log"), key=lambda one: one.name)
    return [file.read_text() for file in files]


def test_a_log_that_is_full_is_set_aside_and_no_line_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(logs, "LOG_BYTES", 30)
    path, lines = tmp_path / "worker-x.log", [f"line number {n}" for n in range(8)]
    said(path, *lines)
    assert len(aside(path)) == 2
    assert sorted("".join([*aside(path), path.read_text()]).splitlines()) == lines
    assert path.read_text().splitlines()[-1] == lines[-1]


def test_another_day_is_another_file_and_a_later_life_adds_to_todays(tmp_path):
    path = tmp_path / "api.log"
    path.write_text("of yesterday\n")
    yesterday = time.time() - 86_400
    os.utime(path, (yesterday, yesterday))
    said(path, "of today")
    said(path, "of today, later")
    assert path.read_text() == "of today\nof today, later\n"
    assert aside(path) == ["of yesterday\n"]


def test_what_was_set_aside_is_dropped_by_number_and_by_age(tmp_path):
    path = tmp_path / "api.log"
    other = tmp_path / "api-of-another.log"
    other.write_text("stays")
    for number in range(KEPT + 3):
        path.write_text(f"{number}")
        os.utime(path, (time.time() - 100 + number,) * 2)
        set_aside(path)
    assert sorted(map(int, aside(path))) == list(range(3, KEPT + 3))
    path.write_text("old")
    os.utime(path, (time.time() - 15 * 86_400,) * 2)
    set_aside(path)
    assert len(aside(path)) == KEPT
    assert "old" not in aside(path)
    assert other.read_text() == "stays"


def test_words_that_are_no_text_and_have_no_end_are_kept_too(tmp_path):
    path = tmp_path / "worker.log"
    copied(io.BytesIO(b"\xff bar\rbar\nlast"), path).join(HANG)
    assert "bar" in path.read_text()
    assert path.read_text().endswith("last\n")
