"""The most that a step takes is never less than what a step of the job does take, and hardly more."""

from hypothesis import given
from hypothesis import strategies as st

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


def held_out(valid: Counts, rows: int) -> int:
    return sum(valid.visit[:rows]) + sum(valid.once[:rows])
