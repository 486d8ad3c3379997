"""How far an adapter has taken the model from its base on text of no task: one number a job. Knows no engine.

The mean, over the tokens of `drift_text.TEXTS`, of KL(base || adapted) of the next token over the whole vocabulary, in
nats a token. The direction is that of arXiv 2605.30148, whose figures are log-ratios on what the base itself would say:
what the base held likely and the adapted model does not any more weighs most.
"""

from collections.abc import Iterator

import numpy as np

from db.contract.tokens.base_model import Base
from db.contract.tokens.encoding import last_occurrence
from worker.runs.drift_text import TEXTS
from worker.scoring.scorer import Scorer
from worker.types import Candidate, Example, Layout, Params, Trial


def measured(scorer: Scorer, base: Base, layout: Layout, params: Params, scope: str) -> float | None:
    """Nats a token; NaN where the model's answers are not finite, None where the base has no token for the text. One
    pass of the bare base and one of the adapter, of a few hundred tokens each. `scope` is the job's: what is kept of a
    pass has its invocation in it, which is its tenant's. Raises what the scorer does."""
    examples = tuple(_examples(base, layout.invocation))
    if not examples:
        return None
    (loss,) = scorer.score([Trial(layout, params, examples, "lm", scope, drift=True)])
    return loss.mean


def _examples(base: Base, invocation: tuple[int, ...]) -> Iterator[Example]:
    """Each text as one sequence. An adapter that acts from an invocation on finds it right before the text, so that it
    acts on every token that is measured: without it the model is the base."""
    before = (*base.prefix, *invocation)
    for text in TEXTS:
        ids = (*before, *base.tokenizer.encode(text, add_special_tokens=False).ids)[: base.context + 1]
        ids = _once(ids, invocation, len(base.prefix))
        rows = np.arange(max(len(before) - 1, 0), len(ids) - 1, dtype=np.int32)
        if len(rows) and max(ids) < base.vocab:
            whole = np.array(ids, np.int32)
            start = len(base.prefix) if invocation else 0
            yield Example((whole[:-1],), (Candidate(0, rows, whole[rows + 1]),), start=start)


def _once(ids: tuple[int, ...], invocation: tuple[int, ...], start: int) -> tuple[int, ...]:
    """The beginning of `ids` in whose input, all but the last, no occurrence of the invocation is behind `start`."""
    while invocation and (found := last_occurrence(ids[:-1], invocation)) is not None and found > start:
        ids = ids[: found + len(invocation)]
    return ids
