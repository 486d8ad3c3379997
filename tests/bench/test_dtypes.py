"""The contenders in half precision take float32's steps up to rounding, and hold what they hold in its dtype."""

import numpy as np
import pytest
import torch

from bench.contenders.cached import CachedScoring
from bench.contenders.draws import seeded
from bench.contenders.loops import base_model, placed
from bench.contenders.official import LozoLoop, MezoLoop
from bench.contenders.strong import LozoStrong, MezoStrong, Scoring, load
from bench.report.measure import Floor
from bench.sections.compare import TOLERANCES, agreed
from tests.bench.test_contenders import BATCH, RATE, SEED, _one_thread, flat, folder, started, windows
from worker.zo.noise import Stream

__all__ = ("_one_thread", "folder")  # fixtures
EPS = 0.1  # so that the two losses differ by more than bfloat16 rounds: by 0.18 to 1.5 (llama), 0.021 to 0.17 (opt)
# Nats; about twice the largest difference of a first step's losses from float32's that was measured: 0.0202 (llama) and
# 0.0075 (opt) in bfloat16. float16 has three bits more: 0.0022 and 0.0010.
BOUNDS = {"llama": 0.04, "opt": 0.015}
FINER = {"bfloat16": 1, "float16": 8}


def first(kind, path, run):
    """The strongest and the official loop, and each one's two losses of step 0 under the same noise."""
    scoring = (CachedScoring if kind == "answer" else Scoring)(load(str(path), compiled=False), run.layout)
    if kind == "lozo":
        noise = flat(Stream.LEFT), windows
        strong = LozoStrong(scoring, EPS, RATE, 1, 2, *noise)
        official = LozoLoop(str(path), run.layout, EPS, RATE, 1, 2, *noise)
    else:
        strong = MezoStrong(scoring, run.params, EPS, RATE, flat(Stream.PROBE))
        official = MezoLoop(str(path), run.layout, run.params, EPS, RATE, flat(Stream.PROBE))
    examples = run.data.minibatch(SEED, 0, BATCH)
    return strong, official, np.array([x.step(examples, 0, run.spec.objective) for x in (strong, official)])


@pytest.mark.parametrize("arch", ("llama", "opt"))
@pytest.mark.parametrize("kind", ("mezo", "lozo", "answer"))
def test_half_precision_takes_float32s_first_step(arch, kind, folder):
    extra = {"method": "lozo", "nu": 2, "window_rank": 1} if kind == "lozo" else {}
    path, run = started(arch, folder, invocation=kind == "answer", **extra)
    *_, exact = first(kind, path, run)
    for dtype, finer in FINER.items():
        with placed("cpu", dtype):
            strong, official, losses = first(kind, path, run)
        bound = BOUNDS[arch] / finer
        assert (
            abs(exact[0, 0] - exact[0, 1]) > bound
        )  # what is scored is told from the base and one sign from the other
        np.testing.assert_allclose(losses, exact, rtol=0, atol=bound)
        assert (losses != exact).all()
        held = official.weights if kind == "lozo" else official.tensors
        assert {x.dtype for x in held} == {official.model.dtype} == {getattr(torch, dtype)} == {strong.scoring.dtype}
        assert strong.params.dtype == torch.float32
        if kind == "answer":
            assert {x.dtype for x in strong.scoring.prompts.values()} == {getattr(torch, dtype)}


def test_a_place_ends_with_its_block(folder):
    path, _ = started("opt", folder)
    with placed("cpu", "bfloat16"):
        assert base_model(str(path)).dtype == torch.bfloat16
        assert seeded(3)((2,)).dtype == torch.float32
    assert base_model(str(path)).dtype == torch.float32


def test_what_agrees_depends_on_the_dtype():
    for dtype, tolerance in TOLERANCES.items():
        for difference in (0.9 * tolerance, 1.1 * tolerance):
            first = {"a": [0.7], "b": [0.7 + difference, 0.8]}
            if difference < tolerance:
                assert agreed(first, dtype) == pytest.approx(difference)
            else:
                with pytest.raises(AssertionError, match="same work"):
                    agreed(first, dtype)


def test_a_floor_reads_the_dtypes_bytes(monkeypatch):
    monkeypatch.setattr(Floor, "gemm", lambda self, _: setattr(self, "rate", 1e30))
    monkeypatch.setattr(Floor, "_read", lambda self, _: setattr(self, "bandwidth", 1.0))

    class Base:
        modules, vocab = (("q_proj", 4, 8),), 10

    assert Floor().seconds(Base, 1, 1, 1, ()) == 4 * (32 + 40)
    assert Floor("cpu", "bfloat16").seconds(Base, 1, 1, 1, ()) == 2 * (32 + 40)
