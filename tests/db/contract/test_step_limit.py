"""The most that a step takes is never less than what a step of the job does take, and hardly more."""

from hypothesis import given
from hypothesis import strategies as st

from db.contract import methods, pricing, sampling
from db.contract.pricing import Counts
from db.contract.sampling import minibatch
from db.contract.step_limit import excesses, most
from tests.db.contract.test_pricing import counts, held_apart, specs


def longest(spec, train: Counts) -> int:
    """Of all steps, one by one."""
    read: set[int] = set()
    found = 0
    for step in range(spec.steps):
        batch = minibatch(spec.seed, step // spec.repeat, len(train.visit), spec.batch_size)
        tokens = spec.method.probes * sum(train.visit[i] for i in batch)
        tokens += sum(train.once[i] for i in set(batch) - read)
        read |= set(batch)
        found = max(found, tokens)
    return found


@given(spec=specs, train=counts)
def test_no_step_takes_more(spec, train):
    assert longest(spec, train) <= most(spec, train)


@given(spec=specs, train=counts, held=st.integers(0, 40))
def test_nor_where_rows_are_held_out_whichever_they_are(spec, train, held):
    spec, trained, kept = held_apart(spec, train, held)
    assert longest(spec, trained) <= most(spec, train)
    found = {excess.what: excess.tokens for excess in excesses(spec, train, Counts(), 0)}
    assert held_out(kept, spec.eval_rows) <= found.get("evaluation", 0)


@given(spec=specs, rows=st.integers(1, 30), tokens=st.integers(1, 500))
def test_of_rows_alike_it_is_the_step_itself(spec, rows, tokens):
    train = Counts([tokens] * rows, [0] * rows)
    assert most(spec, train) == longest(spec, train)


@given(spec=specs, train=counts, valid=counts, limit=st.integers(1, 60_000))
def test_what_would_fit_does(spec, train, valid, limit):
    found = {excess.what: excess for excess in excesses(spec, train, valid, limit)}
    assert ("step" in found) == (most(spec, train) > limit)
    assert ("evaluation" in found) == (held_out(valid, spec.eval_rows) > limit)
    for excess in found.values():
        assert str(excess.tokens) in excess.said(spec, limit)
        if excess.fits:
            narrower = spec.model_copy(update={excess.field: excess.fits})
            assert excess.what not in {e.what for e in excesses(narrower, train, valid, limit)}
        elif excess.what == "step":
            dearest = max(spec.method.probes * v + o for v, o in zip(train.visit, train.once, strict=True))
            assert dearest > limit
            assert f"line {excess.longest + 1} takes most" in excess.said(spec, limit)


@given(spec=specs, train=counts, ahead=st.integers(1, 30), every=st.integers(2, 9), queries=st.integers(1, 3))
def test_no_step_that_scores_other_rows_takes_more_either(spec, train, ahead, every, queries):
    rows = len(train.visit)
    by = {"anchor_rows": min(ahead, rows), "anchor_every": every, "anchor_queries": queries}
    spec = spec.model_copy(update={"method": methods.settings(name="svrg", eps=1e-2, learning_rate=1e-3, **by)})
    order = sampling.permutation(spec.seed, 0, rows)
    dearest = 0
    for step in range(spec.steps):
        batch = minibatch(spec.seed, step // spec.repeat, rows, spec.batch_size)
        seen = order[: by["anchor_rows"]] if step % every == 0 else batch
        tokens = (2 * queries if step % every == 0 else 4) * sum(train.visit[i] for i in seen)
        tokens += sum(train.once[i] for i in order[list(pricing.first_met(spec, step, rows))])
        dearest = max(dearest, tokens)
    assert dearest <= most(spec, train)
    found = {excess.field: excess for excess in excesses(spec, train, Counts(), most(spec, train) - 1)}
    assert found
    for excess in found.values():
        assert excess.fits < {"batch_size": spec.batch_size, "anchor_rows": by["anchor_rows"]}[excess.field]


def held_out(valid: Counts, rows: int) -> int:
    return sum(valid.visit[:rows]) + sum(valid.once[:rows])
