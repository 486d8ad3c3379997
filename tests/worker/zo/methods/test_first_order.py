"""First-order LoRA against torch's AdamW and against the formula in float64."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tests.worker.zo.problems import LAYOUT, WHOLE, Quadratic, arrays
from worker.adapters.snapshots import _packed
from worker.runs.replay import replay
from worker.zo.method import Measured
from worker.zo.methods.first_order import FirstOrder
from worker.zo.moving import Rule
from worker.zo.optimizers import Adam
from worker.zo.schedules import Schedule

RATE, DECAY, CLIP, STEPS = 0.02, 0.1, 0.5, 30


def method(layout=LAYOUT, decay=DECAY, clip: float | None = CLIP, schedule=None) -> FirstOrder:
    return FirstOrder(layout, 17, Rule(Adam(0.9, 0.99), schedule or Schedule(RATE), decay), clip)


def heard(f: Quadratic, params) -> tuple[Measured, ...]:
    return (Measured(f(params), gradient=f.gradient(params).astype(np.float32)),)


def run(method: FirstOrder, f: Quadratic, steps: int):
    params, state = method.init()
    for _ in range(steps):
        (probe,) = method.ask(params, state, ())
        assert probe.gradient
        params, state = method.tell(params, state, heard(f, probe.params))
    return params, state


@pytest.mark.parametrize("clip", [None, CLIP])
def test_equals_torchs_adamw(clip):
    f = Quadratic(LAYOUT)
    params, _ = run(method(clip=clip), f, STEPS)
    theta = torch.nn.Parameter(torch.from_numpy(method().init()[0].astype(np.float64)))
    optimizer = torch.optim.AdamW([theta], lr=RATE, betas=(0.9, 0.99), eps=1e-8, weight_decay=DECAY)
    for _ in range(STEPS):
        theta.grad = torch.from_numpy(f.gradient(theta.detach().numpy()))
        if clip is not None:
            torch.nn.utils.clip_grad_norm_([theta], clip)
        optimizer.step()
    np.testing.assert_allclose(params, theta.detach().numpy(), atol=1e-5)


def test_equals_its_formula():
    f = Quadratic(LAYOUT)
    schedule = Schedule(RATE, "linear", 5, STEPS)
    params, _ = run(method(schedule=schedule), f, STEPS)
    theta = method().init()[0].astype(np.float64)
    m, v = np.zeros_like(theta), np.zeros_like(theta)
    for step in range(STEPS):
        g = f.gradient(theta)
        g = g * min(1.0, CLIP / (np.linalg.norm(g) + 1e-6))
        m, v = 0.9 * m + 0.1 * g, 0.99 * v + 0.01 * g * g
        hat = (m / (1 - 0.9 ** (step + 1))) / (np.sqrt(v / (1 - 0.99 ** (step + 1))) + 1e-8)
        rate = schedule(step)
        theta = theta - rate * DECAY * theta - rate * hat
    np.testing.assert_allclose(params, theta, atol=1e-5)


def test_finds_the_least_value():
    f = Quadratic(WHOLE)
    plain = method(WHOLE, decay=0.0, clip=None)
    assert f(run(plain, f, 300)[0]) < 1e-3 < f(plain.init()[0])


def test_a_step_that_is_not_finite_only_counts():
    f = Quadratic(LAYOUT)
    params, state = run(method(), f, 3)
    (well,) = heard(f, params)
    wild = well.gradient.copy()
    wild[3] = np.inf
    huge = np.full_like(wild, 1e25)  # whose square is not in float32
    for bad in (replace(well, loss=np.nan), replace(well, gradient=wild), replace(well, gradient=huge)):
        same, after = method(clip=None).tell(params, state, (bad,))
        assert same.tobytes() == params.tobytes()
        assert [x.tobytes() for x in arrays(after)] == [x.tobytes() for x in arrays(state)]
        assert (after.step, after.skipped, after.nonfinite) == (4, 1, 1)
    assert method().tell(params, after, (well,))[1].nonfinite == 0


def test_is_pure_and_halves_its_rate():
    f = Quadratic(LAYOUT)
    params, state = run(method(), f, 3)
    for x in (params, *arrays(state)):
        x.setflags(write=False)
    (well,) = heard(f, params)
    one, other = (method(decay=0.0).halved(times).tell(params, state, (well,))[0] for times in (0, 1))
    again, _ = method(decay=0.0).tell(params, state, (well,))
    assert one.tobytes() == again.tobytes()
    np.testing.assert_allclose(params - one, 2 * (params - other), atol=1e-7)


def test_goes_on_from_points_only():
    params, state = method().init()
    with pytest.raises(ValueError, match="it is in no journal"):
        method().tell(params, state, (Measured(1.0),))
    with pytest.raises(ValueError, match="2 measures for 1 probes"):
        method().tell(params, state, (Measured(1.0), Measured(1.0)))
    with pytest.raises(ValueError, match="points kept whole"):
        replay(method(), [[1.0]])
    tensors: dict[str, np.ndarray] = {}
    assert _packed("buffers", state.buffers, tensors)
    assert len(tensors) == 2
