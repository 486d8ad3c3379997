"""The benchmark's contenders take the same steps as Onward's trainer with the oracle, given the same noise."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from bench.contenders.cached import CachedScoring
from bench.contenders.loops import base_model, linears
from bench.contenders.official import LozoLoop, MezoLoop
from bench.contenders.strong import LozoStrong, MezoStrong, Scoring, load
from db.contract import methods
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import open_base
from tests.bases import tiny
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import cohort
from worker.runs.data import Dataset, example
from worker.runs.run import start
from worker.zo import noise
from worker.zo.noise import Place, Stream

STEPS, BATCH, SEED, EPS, RATE = 3, 3, 5, 1e-2, 0.03
ARCHITECTURES = ("llama", "opt", "qwen2")


@pytest.fixture(scope="module", autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


def started(arch, folder, objective="choice", method="mezo", invocation=(), **kwargs):
    """(path, the run before step 0) on a few rows of unlike length, with two or three candidates of 1 to 3 tokens."""
    from db.contract.rows.formats import Choice, Completion
    from db.contract.tokens.encoding import encode

    path = tiny(arch, folder)
    base = open_base(f"tiny-{arch}", str(path))
    texts = ("the film was", "a great and moving story about a small town, it was", "no heart: it", "What is the film")
    ends = ("\nIs it good?", "\nIs it good?", "\nIs it good?", "\nIs it good?")
    rows = []
    for i, (text, end) in enumerate(zip(texts, ends, strict=True)):
        if objective == "lm":
            rows.append(Completion(text + end, " great" * (i + 1)))
        else:
            rows.append(Choice(text + end, (" great", " terrible and boring", " bad")[: 2 + i % 2], i % 2))
    ids = tuple(base.tokenizer.encode(texts[0] + ends[0], add_special_tokens=False).ids[-3:]) if invocation else ()
    targets = ("q_proj", "v_proj", "fc1") if arch == "opt" else ("q_proj", "v_proj", "o_proj", "down_proj")
    if arch == "opt" and ids:  # OPT flattens what fc1 is given, which PEFT's activated LoRA does not expect
        targets = ("q_proj", "v_proj")
    spec = JobSpec(
        model=base.name, objective=objective, training_file="x", steps=STEPS, batch_size=BATCH, eval_every=STEPS,
        adapter=AdapterSpec(
            rank=4, alpha=8.0, targets=targets, activation="answer" if ids else "all", invocation=ids
        ),
        method=methods.settings(name=method, eps=EPS, learning_rate=RATE, **kwargs), seed=SEED,
    )  # fmt: skip
    data = Dataset(tuple(example(encode(base, row, ids)) for row in rows))
    return path, start("x", spec, base, data, "")


def oracle(path, run):
    """The run after its steps, and the losses of each."""
    scorer, losses = TorchScorer(path), []
    for _ in range(STEPS):
        ((run, result),) = cohort.step([run], scorer)
        losses.append(result.losses)
    return run, losses


def stepped(contender, run):
    return [contender.step(run.data.minibatch(SEED, i, BATCH), i, run.spec.objective) for i in range(STEPS)]


def flat(stream: int) -> Callable:
    """Onward's noise of a step, handed out tensor after tensor."""

    def opened(step):
        drawn, at = noise.normal(Place(SEED, stream, step), 1 << 16), 0

        def take(shape):
            nonlocal at
            count = int(np.prod(shape))
            at += count
            return torch.from_numpy(drawn[at - count : at].reshape(shape))

        return take

    return opened


def windows(window):
    """Onward's V^T of a window, module after module."""
    module = -1

    def take(shape):
        nonlocal module
        module += 1
        place = Place(SEED, Stream.RIGHT, window, tensor=2 * module)
        return torch.from_numpy(noise.normal(place, int(np.prod(shape))).reshape(shape))

    return take


def agree(mine, theirs):
    """Rounding at the first step; from then on what 1 / (2 eps) makes of it, against changes of tenths a step."""
    np.testing.assert_allclose(mine[0], theirs[0], rtol=0, atol=3e-6)
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=3e-4)


def close(mine, theirs, start):
    """Equal to what float32 makes of different orders of adding; the steps themselves are much larger."""
    moved = np.abs(theirs - start).max()
    assert moved > 1e-3
    np.testing.assert_allclose(mine, theirs, rtol=0, atol=2e-3 * moved)


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("objective,invocation", [("choice", False), ("lm", False), ("choice", True)])
def test_mezo_contenders_take_the_oracles_steps(arch, objective, invocation, folder):
    path, run = started(arch, folder, objective, invocation=invocation)
    assert all((e.start > 0) == invocation for e in run.data.train)
    done, losses = oracle(path, run)
    strong = MezoStrong(Scoring(load(str(path), compiled=False), run.layout), run.params, EPS, RATE, flat(Stream.PROBE))
    official = MezoLoop(str(path), run.layout, run.params, EPS, RATE, flat(Stream.PROBE))
    for contender in (strong, official):
        agree(stepped(contender, run), losses)
    close(strong.params.numpy(), done.params, run.params)
    if invocation:
        cached = CachedScoring(load(str(path), compiled=False), run.layout)
        loop = MezoStrong(cached, run.params, EPS, RATE, flat(Stream.PROBE))
        agree(stepped(loop, run), losses)
        assert sorted(x.shape[3] for x in cached.prompts.values()) == sorted(e.start for e in run.data.train)
    close(torch.cat([t.flatten() for t in official.tensors]).numpy(), done.params, run.params)


@pytest.mark.parametrize("arch", ARCHITECTURES)
def test_lozo_contenders_take_the_oracles_steps(arch, folder):
    path, run = started(arch, folder, method="lozo", nu=2, window_rank=1)
    done, losses = oracle(path, run)
    scoring = Scoring(load(str(path), compiled=False), run.layout)
    strong = LozoStrong(scoring, EPS, RATE, 1, 2, flat(Stream.LEFT), windows)
    official = LozoLoop(str(path), run.layout, EPS, RATE, 1, 2, flat(Stream.LEFT), windows)
    for contender in (strong, official):
        agree(stepped(contender, run), losses)
    close(strong.params.numpy(), done.params, run.params)
    before = linears(base_model(str(path)), run.layout)
    for now, was, (_, a, b) in zip(official.weights, before, run.layout.pairs(done.params), strict=True):
        delta = run.layout.scaling * b @ a
        np.testing.assert_allclose((now - was.weight).numpy(), delta, atol=2e-3 * np.abs(delta).max())


def test_full_groups_and_padded_ones_score_alike(folder):
    path, run = started("llama", folder)
    examples, probes = run.data.train, torch.from_numpy(np.stack([run.params, run.params + 0.01]))
    alone, together = (
        Scoring(load(str(path), compiled=False), run.layout, full=full).losses(probes, examples, "choice")
        for full in (1.0, 0.0)
    )
    np.testing.assert_allclose(alone, together, atol=1e-6)
    assert alone[0] != alone[1]
