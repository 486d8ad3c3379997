"""What a person sees while jobs train: at 80 columns, wide, and in a pipe."""

import io
import time

import pytest
from openai.types.fine_tuning import FineTuningJob
from rich.console import Console

from cli import show, watch
from cli.watch import Followed


def job(name: str, status: str = "running", **onward: object) -> FineTuningJob:
    """As the API sends one."""
    ours = {"step": 120, "total_steps": 1000, "scored_tokens": 98_000, "best_step": 80, "best_loss": 0.4987} | onward
    return FineTuningJob.model_validate(
        {"id": name, "status": status, "created_at": 1, "model": "m", "object": "fine_tuning.job", "seed": 0}
        | {"organization_id": "t", "result_files": [], "training_file": "f", "hyperparameters": {}, "onward": ours}
        | {"estimated_finish": int(time.time()) + 205 if status == "running" else None}
    )


def followed(name: str, status: str = "running", **onward: object) -> Followed:
    one = Followed(None, job(name, status, **onward), name)  # type: ignore[arg-type]
    one.step, one.train_loss, one.valid_loss, one.valid_accuracy = 120, 0.5234, 0.5121, 0.8125
    now = time.monotonic()
    one._seen.extend([(now - 10, 0, 0), (now, 120, 98_000)])
    return one


def drawn(width: int, *jobs: Followed) -> list[str]:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    console.print(watch.view(jobs, width))
    return console.file.getvalue().splitlines()


TOLD = ("running", "120/1000", "0.523", "0.512", "0.499 at step 80", "12.00", "9.8k", "3 min 2")


@pytest.mark.parametrize("width", [40, 60, 80, 100, 132, 200])
def test_everything_of_two_jobs_is_shown_at_any_width_and_nothing_is_cut(width):
    names = ["ftjob-0123456789abcdefghijklmn", "ftjob-zyxwvutsrqponmlkjihgfedc"]
    lines = drawn(width, *map(followed, names))
    assert max(map(len, lines)) <= width
    whole = "\n".join(lines)
    assert "…" not in whole
    for part in (*TOLD, "left"):
        assert whole.count(part) >= (1 if part == "left" else 2), part
    for name in names:
        assert name in whole


def test_at_80_columns_two_jobs_take_few_lines_and_a_wide_terminal_has_a_table():
    assert len(drawn(80, followed("sentiment"), followed("topic"))) <= 8
    assert len(drawn(200, followed("sentiment"), followed("topic"))) == 3


def test_a_line_in_a_pipe_has_no_rate_once_the_job_has_ended():
    assert "steps/s" in watch.line(followed("a"))
    assert "left" not in watch.line(followed("a", "succeeded"))
    assert "best 0.499 at step 80" in watch.line(followed("a"))
    assert "best 0.700 at step 0, the start" in watch.line(followed("a", best_step=0, best_loss=0.7))
    assert "best" not in watch.line(followed("a", best_step=None, best_loss=None))


@pytest.mark.parametrize("status, said", [("cancelled", "was cancelled at step 33"), ("failed", "failed at step 33")])
def test_how_a_job_ended_names_its_step(status, said):
    assert watch.ending(job("a", status, step=33)) == said


class Scripted(Followed):
    """A job whose next looks are known: the API's part is not asked."""

    def poll(self):
        self.looks = getattr(self, "looks", 0) + 1
        self.job = job(self.label, "succeeded" if self.looks >= (1 if self.label == "early" else 4) else "running")
        self.last_event = "seen"
        return []


def test_a_job_that_ended_early_is_told_once_in_a_pipe(capsys, monkeypatch):
    monkeypatch.setattr(watch, "PLAIN_SECONDS", -1.0)  # at every look
    jobs = [Scripted(None, job(name), name) for name in ("early", "late")]  # type: ignore[arg-type]
    watch.follow(jobs, seconds=0.0)
    lines = capsys.readouterr().out.splitlines()
    assert [line.partition(" ")[0] for line in lines] == ["early:", "late:", "late:", "late:", "late:"]


def test_a_table_in_a_pipe_is_neither_padded_nor_cut(capsys, monkeypatch):
    monkeypatch.delenv("COLUMNS", raising=False)
    show.table(["name", "what>"], [("a", "1"), ("x" * 300, "2")], empty="none")
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 3
    assert all(line == line.rstrip() for line in lines)
    assert lines[2].startswith("x" * 300)
    show.pairs([("short", "v"), ("a longer name", "w" * 500)])
    assert capsys.readouterr().out.splitlines() == ["short          v", f"a longer name  {'w' * 500}"]
