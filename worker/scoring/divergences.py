"""How far two sets of hidden states are apart in what they predict. Knows an engine's head, no trials."""

import numpy as np
import torch
from numpy.typing import NDArray

from worker.engine.engine import Engine


def divergences(
    engine: Engine, bare: torch.Tensor, worn: torch.Tensor, rows: NDArray[np.int64], most: int
) -> NDArray[np.float64]:
    """KL(bare || worn) over the whole vocabulary at each of `rows` of hidden states [tokens, width], nats, float64.

    sum_v p_v (log p_v - log q_v), of logits in the model's dtype and all else in float64: rounding that moves logits by
    1e-6 makes a divergence of 1e-12, so that what equals the base is told as 0. At most about `most` logits are held.
    """
    found = np.empty(len(rows), np.float64)
    chunk = max(1, min(engine.rows, most // (8 * engine.vocab)))
    for low in range(0, len(rows), chunk):
        part = torch.from_numpy(rows[low : low + chunk]).to(bare.device)
        base = torch.log_softmax(engine.logits(bare[part]).double(), dim=-1)
        other = torch.log_softmax(engine.logits(worn[part]).double(), dim=-1)
        found[low : low + chunk] = (base.exp() * (base - other)).sum(-1).cpu().numpy()
    return found
