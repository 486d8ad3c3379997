"""What a request's generator draws while its prompt is still being read: nothing. Knows vLLM's model runner.

vLLM draws a token for every request of a step, throws away those of requests whose prompt is not read to its end, and
has their generators forget the draw. A CPU's generator cannot: the step raises, and with it ends the engine. Here the
generators of such requests are away for as long as a step draws, so that there is nothing to forget on any device, and
what a seed gives does not depend on how a prompt was cut.
"""

from typing import Any

import numpy as np


def install(runner: Any) -> None:
    """Have vLLM's model `runner` draw from a request's generator only what is kept."""
    sample = runner.sample_tokens

    def sample_tokens(grammar: Any) -> Any:
        batch = runner.input_batch
        rows = np.flatnonzero(runner.discard_request_mask.np[: batch.num_reqs]).tolist()
        away = {row: batch.generators.pop(row) for row in rows if row in batch.generators}
        try:
            return sample(grammar)
        finally:
            batch.generators.update(away)

    runner.sample_tokens = sample_tokens
