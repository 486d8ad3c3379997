"""A picture a task is written, whatever the curves' lengths."""

from bench.report.plots import loss_against_time


def test_every_task_has_a_picture(tmp_path):
    curve = [(0.0, 0.9), (10.0, 0.7), (100.0, 0.6)]
    tasks = {"sentiment": {"onward": curve, "official style": curve[:1]}, "Topic, answer": {"onward": curve}}
    written = loss_against_time(tasks, tmp_path, {"sentiment": 0.65})
    assert [p.name for p in written.values()] == ["loss-sentiment.png", "loss-topic-answer.png"]
    assert all(p.read_bytes().startswith(b"\x89PNG") for p in written.values())
