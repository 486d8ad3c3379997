"""The price is what a job really forwards, to the token."""

import time

from hypothesis import given
from hypothesis import strategies as st

from db import pricing
from db.pricing import Price, evaluations, price, probes, steps_within
from db.sampling import minibatch
from db.spec import AdapterSpec, JobSpec, MethodSpec
from worker.data import Dataset, examples

tokens = st.lists(st.integers(1, 500), min_size=1, max_size=30)
methods = st.builds(
    MethodSpec,
    name=st.just("mezo"),
    estimator=st.sampled_from(["two_point", "one_sided"]),
    queries=st.integers(1, 4),
    eps=st.just(1e-2),
    learning_rate=st.just(1e-3),
)
specs = st.builds(
    JobSpec,
    model=st.just("m"),
    objective=st.just("choice"),
    adapter=st.just(AdapterSpec(rank=1, alpha=1, targets=("q_proj",))),
    method=methods,
    training_file=st.just("file-1"),
    steps=st.integers(1, 60),
    batch_size=st.integers(1, 40),
    eval_every=st.integers(1, 70),
    eval_rows=st.integers(0, 12),
    seed=st.integers(0, 2**63 - 1),
)


def _walk(spec: JobSpec, train: list[int], valid: list[int], steps: int) -> Price:
    """A job, step by step as a trainer goes: evaluate, ask, score, until `steps`; evaluate at the end."""
    training = evaluation = 0
    due = {*range(0, steps + 1, spec.eval_every), steps}
    for step in range(steps + 1):
        if step in due:
            evaluation += sum(valid[: spec.eval_rows])
        if step < steps:
            sides = 2 * spec.method.queries if spec.method.estimator == "two_point" else spec.method.queries + 1
            for _ in range(sides):
                training += sum(train[i] for i in minibatch(spec.seed, step, len(train), spec.batch_size))
    return Price(training, evaluation)


@given(spec=specs, train=tokens, valid=tokens)
def test_price_is_the_sum_over_every_step(spec, train, valid):
    found = price(spec, train, valid)
    assert found == _walk(spec, train, valid, spec.steps)
    assert found.total == found.training + found.evaluation


@given(spec=specs, train=tokens, valid=tokens, share=st.floats(0, 1.2))
def test_price_of_a_beginning_and_steps_within_a_budget(spec, train, valid, share):
    spec = spec.model_copy(update={"steps": min(spec.steps, 12)})
    paid = [_walk(spec, train, valid, steps).total for steps in range(spec.steps + 1)]
    assert [price(spec, train, valid, steps).total for steps in range(spec.steps + 1)] == paid
    for budget in (int(share * paid[-1]), paid[len(paid) // 2], paid[len(paid) // 2] - 1):
        most = steps_within(budget, spec, train, valid)
        assert most == max((steps for steps, cost in enumerate(paid) if cost <= budget), default=0)


@given(spec=specs)
def test_evaluations_are_counted_once_each(spec):
    expected = len({*range(0, spec.steps + 1, spec.eval_every), spec.steps}) if spec.eval_rows else 0
    assert evaluations(spec) == expected


def _spec(**changes: object) -> JobSpec:
    method = MethodSpec(name="lozo", queries=3, estimator="one_sided", eps=1e-2, learning_rate=1e-3)
    adapter = AdapterSpec(rank=8, alpha=16, targets=("q_proj",))
    values = {"model": "m", "objective": "lm", "adapter": adapter, "method": method, "training_file": "file-1"}
    return JobSpec(**{**values, "steps": 20_000, "batch_size": 16, "eval_every": 100, "seed": 3, **changes})


def test_a_plain_case_by_hand():
    # 10 steps of 2 rows over 4 rows of 1, 2, 3, 4 tokens: 5 epochs of 10 tokens, 4 probes; evaluated at 0, 4, 8, 10.
    spec = _spec(steps=10, batch_size=2, eval_every=4, eval_rows=2)
    assert probes(spec.method) == 4
    assert price(spec, [1, 2, 3, 4], [5, 6, 7]) == Price(training=4 * 50, evaluation=4 * 11)
    assert price(spec.model_copy(update={"eval_every": 5}), [1, 2, 3, 4], [5, 6, 7]).evaluation == 3 * 11


def test_a_row_costs_what_the_examples_forward(base):
    raw = b"".join(
        b'{"prompt": "the film was %s and", "choices": [" great", " terrible and long", " great, yes"], "label": 0}\n'
        % (b"very " * i)
        for i in range(7)
    )
    data = Dataset(examples(base, raw), examples(base, raw, rows=3))
    spec = _spec(steps=5, batch_size=3, eval_every=2, eval_rows=3, seed=11)
    paid = sum(e.tokens for step in range(5) for _ in range(4) for e in data.minibatch(11, step, 3))
    paid += sum(e.tokens for _ in (0, 2, 4, 5) for e in data.valid)
    forwarded = sum(len(s) for step in range(5) for e in data.minibatch(11, step, 3) for s in e.sequences)
    assert price(spec, [e.tokens for e in data.train], [e.tokens for e in data.valid]).total == paid
    assert price(spec, [e.tokens for e in data.train], []).training == 4 * forwarded


def test_twenty_thousand_steps_are_priced_at_once():
    spec, train = _spec(eval_rows=200), list(range(1, 1001))
    times = []
    for _ in range(5):
        pricing.permutation.cache_clear()
        start = time.perf_counter()
        assert price(spec, train, train).training == 4 * 320 * 500_500
        times.append(time.perf_counter() - start)
    assert min(times) < 0.1
