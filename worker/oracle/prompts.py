"""Keys and values of prompts, computed once by the bare base model. Knows a causal LM of transformers; no adapter."""

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from transformers import DynamicCache

from worker.types import Example


class Kept(Protocol):
    """What keeps prompts between steps: `worker.engine.prompt_cache.PromptCache`, say."""

    def get(self, scope: str, prompt: bytes) -> torch.Tensor | None: ...

    def put(self, scope: str, prompt: bytes, value: torch.Tensor, size: int) -> torch.Tensor: ...


@torch.no_grad()
def of(model: Any, examples: Sequence[Example], kept: Kept, scope: str) -> list[torch.Tensor | None]:
    """Keys and values [layers, 2, heads, start, width] of each example's prompt, from what the scope has `kept` or from
    the `model`, which is called where it is bare; None for an example without a prompt."""
    found: dict[bytes, torch.Tensor | None] = {b"": None}
    for example in examples:
        if example.prompt_key not in found:
            known = kept.get(scope, example.prompt_key)
            if known is None:
                computed = _computed(model, example)
                known = kept.put(scope, example.prompt_key, computed, computed.nbytes)
            found[example.prompt_key] = known
    return [found[example.prompt_key] for example in examples]


def _computed(model: Any, example: Example) -> torch.Tensor:
    ids = torch.from_numpy(example.prompt).long()[None]
    cache = DynamicCache()
    model(input_ids=ids, past_key_values=cache, use_cache=True)
    return torch.stack([torch.stack((layer.keys[0], layer.values[0])) for layer in cache.layers])


def continued(prompts: Sequence[torch.Tensor | None]) -> tuple[DynamicCache, torch.Tensor]:
    """A cache for a batch that continues these prompts, one a row and at least one in all, left-padded to the longest,
    and its attention mask [rows, longest]."""
    known = [prompt for prompt in prompts if prompt is not None]
    longest = max(prompt.shape[3] for prompt in known)
    layers, two, heads, _, width = known[0].shape
    whole = known[0].new_zeros(layers, two, len(prompts), heads, longest, width)
    mask = torch.zeros(len(prompts), longest, dtype=torch.long)
    for row, prompt in enumerate(prompts):
        if prompt is not None:
            whole[:, :, row, :, longest - prompt.shape[3] :] = prompt
            mask[row, longest - prompt.shape[3] :] = 1
    return DynamicCache([(layer[0], layer[1]) for layer in whole]), mask
