"""PEFT and torch alone: a trial's mean loss on whole sequences, one at a time, in float64. Knows no scorer."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from worker.types import Example, Layout, Params


class Reference:
    """A fresh PEFT model that wears `params`; `tensors` are its adapter's, in layout order."""

    def __init__(self, path: Path, shape: Layout, params: Params) -> None:
        base = AutoModelForCausalLM.from_pretrained(path).double().requires_grad_(False)
        config = LoraConfig(
            r=shape.rank, lora_alpha=shape.alpha, target_modules=[m.name for m in shape.modules], lora_dropout=0.0,
            task_type="CAUSAL_LM", alora_invocation_tokens=list(shape.invocation) or None,
        )  # fmt: skip
        self.model = get_peft_model(base, config, autocast_adapter_dtype=False)
        inner = self.model.base_model.model
        self.tensors = []
        for module, a, b in shape.pairs(params):
            layer = inner.get_submodule(module.name)
            for half, values in ((layer.lora_A, a), (layer.lora_B, b)):
                half["default"].weight.data = torch.from_numpy(values.copy()).double()
                self.tensors.append(half["default"].weight)

    @property
    def params(self) -> np.ndarray:
        return torch.cat([x.detach().flatten() for x in self.tensors]).numpy()

    def loss(self, examples: Sequence[Example], objective: str) -> torch.Tensor:
        terms = []
        for example in examples:
            answers = [self.model(input_ids=torch.tensor(s)[None]).logits[0] for s in example.sequences]
            logs = [torch.log_softmax(x, -1) for x in answers]
            read = [logs[c.sequence][c.positions, c.targets] for c in example.candidates]
            if objective == "lm":
                terms += [-x for row in read for x in row]
            else:
                scores = torch.stack([row.mean() for row in read])
                terms.append(torch.nn.functional.cross_entropy(scores[None], torch.tensor([example.label])))
        return torch.stack(terms).mean()

    def gradient(self, examples: Sequence[Example], objective: str) -> tuple[float, np.ndarray]:
        loss = self.loss(examples, objective)
        found = torch.autograd.grad(loss, self.tensors)
        return loss.item(), torch.cat([x.flatten() for x in found]).numpy()
