"""EGGROLL's weights for members that share V: the space is LOZO's window. Knows no direction and no parameter.

Arxiv 2511.16652: members W + eps E_i with E_i = U_i V_i^T / sqrt r, W <- W - lr sqrt N mean_i f_i E_i, f_i the z-scored
losses. Here V_i = V for nu steps, so that a window of r rows of A and r columns of B holds every member and every
update exactly. Members with a V_i of their own add up to rank N r a step, which no adapter of fixed rank holds.
"""

import math

from worker.zo.estimators import Standardised


def weighing(eps: float, queries: int, rank: int) -> Standardised:
    """Weights of directions U_i V^T of rank `rank` without the 1 / sqrt r, which both radius and weight take over."""
    return Standardised("mean", eps / math.sqrt(rank), queries, gain=math.sqrt(queries / rank))
