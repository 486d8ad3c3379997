"""What curves come to: where a loss is reached, and when, by each contender's clock."""

import pytest

from bench.sections.quality import Curve, mean, met, settled, steps_to

POINTS = [(0, 1.0, 0.5), (10, 0.8, 0.6), (20, 0.9, 0.6), (30, 0.5, 0.7)]


def test_a_loss_is_reached_between_evaluations():
    assert steps_to(POINTS, 1.2) == 0
    assert steps_to(POINTS, 0.9) == pytest.approx(5)
    assert steps_to(POINTS, 0.6) == pytest.approx(20 + 10 * 0.3 / 0.4)
    assert steps_to(POINTS, 0.4) is None


def test_curves_are_averaged_step_by_step():
    one, other = Curve("t", "all", 0, {}, POINTS), Curve("t", "all", 1, {}, [(s, x + 0.2, a) for s, x, a in POINTS])
    assert mean([one, other])[3] == (30, pytest.approx(0.6), pytest.approx(0.7))


def test_prompts_are_met_once_a_minibatch_and_once_a_row():
    curve = Curve("t", "answer", 0, {}, rows=100, batch=8, repeat=4, prompt=10.0)
    assert met(curve, 4) == 80
    assert met(curve, 4.5) == 160
    assert met(curve, 1000) == 1000


def test_wall_clock_is_steps_and_prompts_by_each_contenders_clock():
    whole = Curve("t", "all", 0, {}, [(0, 1.0, 0.5), (100, 0.5, 0.7)])  # ends above the other: the target
    some = Curve("t", "answer", 0, {}, [(0, 1.0, 0.5), (40, 0.4, 0.8)], rows=100, batch=8, repeat=4, prompt=10.0)
    compare = {
        "preset, t": {"contenders": {"onward": {"seconds a step": {"median": 2.0}}}},
        "preset, t, answer": {
            "contenders": {
                "onward": {"seconds a step": {"median": 0.1}, "prompt tokens": 1000, "prompt seconds": 5.0},
                "strongest loop": {"seconds a step": {"median": 1.9}},
            }
        },
    }
    found = settled([whole, some], compare)
    assert found["target"] == {"t": 0.5}
    assert found["to target"]["preset, t"]["onward"] == pytest.approx(200)
    steps = 40 * 0.5 / 0.6
    prompts = 0.005 * 10 * 8 * -(-steps // 4)
    assert found["to target"]["preset, t, answer"]["onward"] == pytest.approx(0.1 * steps + prompts)
    assert found["to target"]["preset, t, answer"]["strongest loop"] == pytest.approx(1.9 * steps)
    assert found["wall-clock"]["t"]["onward, all"] == [(0.0, 1.0), (200.0, 0.5)]
    assert set(found["wall-clock"]["t"]) == {"onward, all", "onward, answer"}
