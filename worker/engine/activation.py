"""From which token on a served request wears its adapter. Knows vLLM's input batch; no tensors and no adapters.

With activation `answer` an adapter acts from the last occurrence of its invocation in the prompt on. Where that is, is
said once, when the request is admitted, and travels with it: a prompt read in chunks, found in the prefix cache, or
read again after a preemption is cut at the same token.

vLLM's prefix cache would know a prompt's keys and values by its adapter from the first token on, and whatever of them
the adapter had no part in. Here what lies before the start is known as the base's, which it is, and the rest by adapter
and start: a conversation's next turn, whose start is later, finds what was before the first one, and not its answers,
which wear nothing any more.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray
from vllm import SamplingParams
from vllm.lora.request import LoRARequest
from vllm.v1.core import kv_cache_utils

_vllms = kv_cache_utils.generate_block_hash_extra_keys
START = "onward_start"  # in a request's `extra_args`, which vLLM hands through to the batch, to each of `n` too


def acting_from(sampling: SamplingParams, start: int) -> SamplingParams:
    """The same, with `start` tokens at the beginning of the sequence that get no adapter."""
    own = sampling.clone()
    own.extra_args = {**(own.extra_args or {}), START: start}
    return own


def named_from(adapter: LoRARequest, start: int) -> LoRARequest:
    """The same adapter, by whose path vLLM's prefix cache knows keys and values: those of one that acts from another
    token on are others, even where the tokens are the same."""
    return LoRARequest(adapter.lora_name, adapter.lora_int_id, f"{adapter.lora_path}/{start}")


def install(runner: Any) -> None:
    """Have the batch of vLLM's model `runner` give tokens before their request's start no adapter, and its prefix cache
    know them as the base's."""
    kv_cache_utils.generate_block_hash_extra_keys = _keys
    batch = runner.input_batch
    made = batch.make_lora_inputs

    def make_lora_inputs(
        scheduled: NDArray[np.int32], sampled: NDArray[np.int32]
    ) -> tuple[tuple[int, ...], tuple[int, ...], set[LoRARequest]]:
        prompts, tokens, requests = made(scheduled, sampled)
        return prompts, _cut(tokens, scheduled, batch, runner.requests), requests

    batch.make_lora_inputs = make_lora_inputs


def _start(sampling: SamplingParams | None) -> int:
    return int((sampling.extra_args or {}).get(START, 0)) if sampling is not None else 0


def _keys(request: Any, start: int, stop: int, multimodal: int) -> Any:
    """What a block of tokens `start` to `stop` is known by beside them and what precedes them."""
    if stop > _start(request.sampling_params):
        return _vllms(request, start, stop, multimodal)
    adapter, request.lora_request = request.lora_request, None
    try:
        return _vllms(request, start, stop, multimodal)
    finally:
        request.lora_request = adapter


def _cut(
    tokens: tuple[int, ...], scheduled: NDArray[np.int32], batch: Any, requests: dict[str, Any]
) -> tuple[int, ...]:
    """`tokens` [sum of scheduled], the adapter's id of each token of a step, 0 where a token lies before the start."""
    cut: list[int] | None = None
    at = 0
    for row, count in enumerate(scheduled.tolist()):
        start = _start(requests[batch.req_ids[row]].sampling_params)
        before = min(count, start - int(batch.num_computed_tokens_cpu[row]))
        if before > 0:
            cut = list(tokens) if cut is None else cut
            cut[at : at + before] = [0] * before
        at += count
    return tokens if cut is None else tuple(cut)
