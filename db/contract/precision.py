"""How small a probe may be in the dtype that computes it. Knows no worker's row.

A loss is known to the rounding of the engine's dtype, and a method reads the difference of two losses a probe apart: a
radius below some size is read as noise, and what is trained on noise learns nothing, without a word.
"""

from collections.abc import Collection
from typing import Final

from db.contract.methods import MethodSpec
from db.contract.refusal import Unfit

# bfloat16: a token's log-probability is wrong by 2e-2 to 3e-2 nats, more than what a smaller probe changes. Of float16
# nothing is known that a radius would follow from.
LEAST_EPS: Final = {"bfloat16": 3e-2}


def least_eps(dtypes: Collection[str]) -> float:
    """The least `eps` that is above the noise of each of these dtypes; 0 where each takes any."""
    return max((LEAST_EPS.get(dtype, 0.0) for dtype in dtypes), default=0.0)


def unfit(method: MethodSpec, dtypes: Collection[str]) -> Unfit | None:
    """Why the probes of `method` are too small for workers that compute in `dtypes`: of those that take forward
    passes, for a worker with the torch scorer has derivatives at hand and a dtype of its own."""
    eps, least = getattr(method, "eps", None), least_eps(dtypes)
    if method.autograd or eps is None or eps >= least:
        return None
    coarsest = max(dtypes, key=lambda dtype: LEAST_EPS.get(dtype, 0.0))
    return Unfit("eps", f"eps is {eps:g}: at least {least:g} where a worker computes in {coarsest}: its noise")
