"""The price is what a job really forwards, to the token."""

import sys

from hypothesis import given
from hypothesis import strategies as st

from db.contract import methods, pricing
from db.contract.methods.mezo import Mezo
from db.contract.pricing import Counts, Price, evaluations, price, steps_within
from db.contract.rows.files import parse
from db.contract.sampling import minibatch, split
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.encoding import encode
from worker.runs.data import Dataset, dataset, examples

counts = st.lists(st.tuples(st.integers(1, 500), st.integers(0, 500)), min_size=1, max_size=30).map(
    lambda rows: Counts(*zip(*rows, strict=True))
)
mezos = st.builds(
    Mezo,
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
    method=mezos,
    training_file=st.just("file-1"),
    steps=st.integers(1, 60),
    batch_size=st.integers(1, 40),
    repeat=st.integers(1, 7),
    eval_every=st.integers(1, 70),
    eval_rows=st.integers(0, 12),
    seed=st.integers(0, 2**63 - 1),
)


def _walk(spec: JobSpec, train: Counts, valid: Counts, steps: int) -> Price:
    """A job, step by step as a trainer goes: evaluate, ask, score, until `steps`; evaluate at the end."""
    training = evaluation = 0
    due = {*range(0, steps + 1, spec.eval_every), steps}
    read: set[int] = set()  # training rows whose prompt was computed before
    measured = False
    for step in range(steps + 1):
        if step in due:
            for row in range(min(spec.eval_rows, len(valid.visit))):
                evaluation += valid.visit[row] + (0 if measured else valid.once[row])
            measured = True
        if step < steps:
            batch = minibatch(spec.seed, step // spec.repeat, len(train.visit), spec.batch_size)
            sides = 2 * spec.method.queries if spec.method.estimator == "two_point" else spec.method.queries + 1
            for _ in range(sides):
                training += sum(train.visit[i] for i in batch)
            for i in batch:
                training += 0 if i in read else train.once[i]
                read.add(i)
    return Price(training, evaluation)


@given(spec=specs, train=counts, valid=counts)
def test_price_is_the_sum_over_every_step(spec, train, valid):
    found = price(spec, train, valid)
    assert found == _walk(spec, train, valid, spec.steps)
    assert found.total == found.training + found.evaluation


@given(spec=specs, train=counts, valid=counts, share=st.floats(0, 1.2))
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
    method = methods.settings(name="lozo", queries=3, estimator="one_sided", eps=1e-2, learning_rate=1e-3)
    adapter = AdapterSpec(rank=8, alpha=16, targets=("q_proj",))
    values = {"model": "m", "objective": "lm", "adapter": adapter, "method": method, "training_file": "file-1"}
    return JobSpec(**{**values, "steps": 20_000, "batch_size": 16, "eval_every": 100, "seed": 3, **changes})


def held_apart(spec, train: Counts, held: int) -> tuple[JobSpec, Counts, Counts]:
    """The spec with so many rows held out, modulo the rows, and the counts of both parts."""
    spec = spec.model_copy(update={"held_out": held % len(train.visit)})
    parts = split(spec.seed, len(train.visit), spec.held_out)
    return spec, *(Counts([train.visit[i] for i in part], [train.once[i] for i in part]) for part in parts)


@given(spec=specs, train=counts, held=st.integers(0, 40), share=st.floats(0, 1.2))
def test_rows_held_out_are_paid_as_measured_on_and_not_as_trained_on(spec, train, held, share):
    spec, trained, kept = held_apart(spec, train, held)
    for steps in (spec.steps, spec.steps // 3):
        assert price(spec, train, Counts(), steps) == _walk(spec, trained, kept, steps)
    budget = int(share * price(spec, train, Counts()).total)
    plain = spec.model_copy(update={"held_out": 0})
    assert steps_within(budget, spec, train, Counts()) == steps_within(budget, plain, trained, kept)


def test_a_run_sees_the_rows_that_the_price_is_of(base):
    spec = _spec(steps=5, batch_size=2, eval_every=2, eval_rows=2, held_out=3, seed=11)
    data, whole = dataset(base, spec, RAW), examples(base, RAW)
    trained, kept = split(11, 7, 3)
    assert [e.tokens for e in data.train] == [whole[i].tokens for i in trained]
    assert [e.tokens for e in data.valid] == [whole[i].tokens for i in kept[:2]]
    assert data.train[-1].sequences[0].tolist() == whole[trained[-1]].sequences[0].tolist()
    walked = sum(e.tokens for step in range(5) for e in data.minibatch(11, step, 2))
    measured = 4 * sum(e.tokens for e in data.valid)
    assert price(spec, Counts([e.tokens for e in whole], [0] * 7), Counts()) == Price(4 * walked, measured)
    assert dataset(base, spec.model_copy(update={"eval_rows": 0}), RAW).valid == ()
    alone = dataset(base, _spec(eval_rows=2), RAW, RAW)
    assert (len(alone.train), len(alone.valid), len(dataset(base, _spec(eval_rows=2), RAW).valid)) == (7, 2, 0)


def test_a_plain_case_by_hand():
    # 10 steps of 2 rows over 4 rows of 1, 2, 3, 4 tokens: 5 epochs of 10 tokens, 4 probes; evaluated at 0, 4, 8, 10.
    spec = _spec(steps=10, batch_size=2, eval_every=4, eval_rows=2)
    assert spec.method.probes == 4
    train, valid = Counts([1, 2, 3, 4], [0] * 4), Counts([5, 6, 7], [0] * 3)
    assert price(spec, train, valid) == Price(training=4 * 50, evaluation=4 * 11)
    assert price(spec.model_copy(update={"eval_every": 5}), train, valid).evaluation == 3 * 11
    # What is paid once a row: all four training rows are visited in the first two steps, two validation rows are read.
    once = Counts([1, 2, 3, 4], [100] * 4), Counts([5, 6, 7], [1000] * 3)
    assert price(spec, *once) == Price(training=4 * 50 + 400, evaluation=4 * 11 + 2000)
    first = minibatch(spec.seed, 0, 4, 2)
    assert price(spec, *once, steps=1).training == 4 * sum(i + 1 for i in first) + 200
    assert price(spec, *once, steps=0) == Price(training=0, evaluation=11 + 2000)


RAW = b"".join(
    b'{"prompt": "the film was %s and it was:", "choices": [" great", " terrible and long", " great, yes"], "label": 0}'
    b"\n" % (b"very " * i)
    for i in range(7)
)


def test_a_row_costs_what_the_examples_forward(base):
    data = Dataset(examples(base, RAW), examples(base, RAW, rows=3))
    spec = _spec(steps=5, batch_size=3, eval_every=2, eval_rows=3, seed=11)
    # Every distinct beginning of an input is one forward position: what two candidates have in common is paid once.
    forwarded = sum(len(_beginnings(e)) for step in range(5) for e in data.minibatch(11, step, 3))
    evaluated = sum(len(_beginnings(e)) for _ in (0, 2, 4, 5) for e in data.valid)
    train, valid = (Counts([e.tokens for e in part], [0] * len(part)) for part in (data.train, data.valid))
    assert price(spec, train, valid) == Price(4 * forwarded, evaluated)
    assert price(spec, train, Counts()).training == 4 * forwarded


def test_a_row_of_an_answer_costs_its_prompt_once_and_the_rest_every_time(base):
    (row,) = parse([RAW.splitlines()[0]])
    ids = tuple(base.tokenizer.encode(":", add_special_tokens=False).ids)
    plain, found = encode(base, row), encode(base, row, ids)
    head = len(base.encode(row.prompt))
    assert found.prompt == head - len(ids)
    assert found.tokens == plain.tokens - found.prompt
    assert found.tokens == len(_beginnings(found)) - found.prompt


def _beginnings(row):
    return {tuple(s[:end]) for s in row.sequences for end in range(1, len(s) + 1)}


def test_twenty_thousand_steps_are_priced_without_walking_them():
    spec, train = _spec(eval_rows=200), Counts(list(range(1, 1001)), list(range(1000)))
    price(spec, train, train)  # numpy imports parts of itself when they are first used
    pricing.permutation.cache_clear()
    lines = 0

    def count(frame, event, arg):
        nonlocal lines
        lines += event == "line"
        return count

    before = sys.gettrace()
    sys.settrace(count)
    try:
        found = price(spec, train, train)
    finally:
        sys.settrace(before)
    assert found.training == 4 * 320 * 500_500 + 499_500
    assert lines < spec.steps / 20  # of Python: 70, where a walk runs millions
