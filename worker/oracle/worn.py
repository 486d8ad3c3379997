"""Probes worn by a transformers model as real PEFT LoRA layers. Knows tensors of layers, no trial and no loss."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from peft import LoraConfig, get_peft_model

from worker.types import Layout, Params

ADAPTERS = 8  # PEFT adapters kept, one for each layout; the oldest makes room


class Wardrobe:
    """The PEFT adapters of one base model."""

    def __init__(self, base: Any) -> None:
        self._base = base
        self._peft: Any = None
        self._linears = {name for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
        self._adapters: dict[Layout, str] = {}
        self._registered = 0

    @property
    def model(self) -> Any:
        """What is called: the base model until something was worn, then PEFT's around it."""
        return self._base if self._peft is None else self._peft

    def bare(self) -> AbstractContextManager[Any]:
        """Within it the model is the base model alone."""
        return nullcontext() if self._peft is None else self._peft.disable_adapter()

    def wear(self, layout: Layout, params: Params) -> list[torch.nn.Parameter]:
        """Write a probe's tensors into the PEFT adapter of its layout and make that adapter the active one; the
        layers' own tensors, in layout order. Raises ValueError for a module that the model lacks."""
        if layout not in self._adapters:
            self._register(layout)
        name = self._adapters[layout]
        self._peft.set_adapter(name)
        self._peft.requires_grad_(False)
        tensors = self._tensors(layout, name)
        for i, tensor in enumerate(tensors):
            tensor.data.copy_(torch.tensor(layout.tensor(params, i)))
        return tensors

    def names(self, tensors: list[torch.nn.Parameter]) -> list[str]:
        """What the model calls these of its parameters."""
        known = {id(tensor): name for name, tensor in self._peft.named_parameters()}
        return [known[id(tensor)] for tensor in tensors]

    def _tensors(self, layout: Layout, name: str) -> list[torch.nn.Parameter]:
        inner = self._peft.base_model.model
        layers = [inner.get_submodule(module.name) for module in layout.modules]
        return [half[name].weight for layer in layers for half in (layer.lora_A, layer.lora_B)]

    def _register(self, layout: Layout) -> None:
        for module in layout.modules:
            if module.name not in self._linears:
                raise ValueError(f"the base model has no linear module {module.name!r}")
        if len(self._adapters) == ADAPTERS:
            self._peft.delete_adapter(self._adapters.pop(next(iter(self._adapters))))
        self._registered += 1
        name = f"layout{self._registered}"
        config = LoraConfig(
            r=layout.rank,
            lora_alpha=layout.alpha,  # not always whole; PEFT only divides it by r
            target_modules=[m.name for m in layout.modules],
            lora_dropout=0.0,
            bias="none",
            task_type="CAUSAL_LM",
            alora_invocation_tokens=list(layout.invocation) or None,
        )
        if self._peft is None:
            self._peft = get_peft_model(self._base, config, adapter_name=name).eval()
        else:
            self._peft.add_adapter(name, config)
        self._adapters[layout] = name
