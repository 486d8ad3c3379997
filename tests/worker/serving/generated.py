"""Greedy tokens of served requests, and of transformers and PEFT alone. Knows one engine and one model folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM
from vllm import SamplingParams
from vllm.lora.request import LoRARequest

from db.contract.tokens.encoding import last_occurrence
from tests.worker.scoring.cases import tokens
from worker.engine.engine import Engine
from worker.types import Layout, Wearable

_numbers = count()


@dataclass(frozen=True)
class Asked:
    """`count` tokens after `ids`, end of text ignored: greedy, or with a `seed` drawn."""

    ids: tuple[int, ...]
    wearable: Wearable | None = None
    count: int = 24
    salt: str | None = None
    seed: int | None = None

    @property
    def start(self) -> int:
        """Where its adapter begins to act; past the end where its invocation is nowhere, as PEFT has it."""
        invocation = () if self.wearable is None else self.wearable.layout.invocation
        found = last_occurrence(self.ids, invocation) if invocation else 0
        return len(self.ids) + self.count if found is None else found


def prompt(rng: np.random.Generator, length: int) -> tuple[int, ...]:
    return tuple(tokens(rng, length).tolist())


def invoked(rng: np.random.Generator, before: int, invocation: Sequence[int], after: int) -> tuple[int, ...]:
    """A prompt with one invocation in it and none else."""
    ids = [x if x not in invocation else 11 for x in prompt(rng, before + after)]
    return (*ids[:before], *invocation, *ids[before:])


def admitted(engine: Engine, asked: Asked) -> str:
    """The request, queued under a name of its own; its adapter taken."""
    name = f"asked-{next(_numbers)}"
    drawn = {"temperature": 0.0} if asked.seed is None else {"temperature": 1.0, "seed": asked.seed}
    sampling = SamplingParams(max_tokens=asked.count, ignore_eos=True, **drawn)
    adapter = None
    if asked.wearable is not None:
        adapter = take(engine, asked.wearable)
        assert adapter is not None, "every place is pinned"
    engine.owner.run(lambda: engine.add_request(name, asked.ids, sampling, adapter, asked.start, asked.salt))
    return name


def take(engine: Engine, wearable: Wearable) -> LoRARequest | None:
    return engine.owner.run(lambda: engine.places.take(wearable))


def give(engine: Engine, *names: str) -> None:
    for name in names:
        engine.owner.run(partial(engine.places.give, name))


def step(engine: Engine) -> dict[str, list[int]]:
    """One step: the tokens of each request that it has ended."""
    outputs = engine.owner.run(engine.step)
    return {output.request_id: list(output.outputs[0].token_ids) for output in outputs if output.finished}


def served(engine: Engine, requests: Sequence[Asked], between: Callable[[], None] = lambda: None) -> list[list[int]]:
    """All in one batch, to their ends; `between` is called between the steps. What was taken is given back."""
    names = [admitted(engine, asked) for asked in requests]
    outputs: dict[str, list[int]] = {}
    while len(outputs) < len(names):
        outputs |= step(engine)
        between()
    give(engine, *(asked.wearable.name for asked in requests if asked.wearable is not None))
    return [outputs[name] for name in names]


class Peft:
    """transformers and PEFT in float32, one sequence at a time, on the model in `path`."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._models: dict[str, Any] = {}

    def generated(self, asked: Asked) -> list[int]:
        ids = torch.tensor(asked.ids)[None]
        with torch.inference_mode():
            # An end of text that were forbidden, or taken for one, would be another text than the engine's.
            out = self._model(asked.wearable).generate(
                input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=asked.count, do_sample=False,
                eos_token_id=None,
            )  # fmt: skip
        return out[0, len(asked.ids) :].tolist()

    def _model(self, wearable: Wearable | None) -> Any:
        name = "" if wearable is None else wearable.name
        if name not in self._models:
            model: Any = AutoModelForCausalLM.from_pretrained(self._path).float().eval()
            model.generation_config.eos_token_id = None
            self._models[name] = model if wearable is None else worn(model, wearable.layout, wearable.params)
        return self._models[name]


def worn(model: Any, shape: Layout, params: np.ndarray) -> Any:
    config = LoraConfig(
        r=shape.rank, lora_alpha=shape.alpha, target_modules=[m.name for m in shape.modules], lora_dropout=0.0,
        task_type="CAUSAL_LM", alora_invocation_tokens=list(shape.invocation) or None,
    )  # fmt: skip
    peft = get_peft_model(model, config).eval()
    for module, a, b in shape.pairs(params):
        layer = peft.base_model.model.get_submodule(module.name)
        layer.lora_A["default"].weight.data.copy_(torch.tensor(a))
        layer.lora_B["default"].weight.data.copy_(torch.tensor(b))
    return peft
