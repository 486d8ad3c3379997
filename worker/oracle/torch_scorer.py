"""The oracle: transformers and real PEFT LoRA layers, one trial at a time. Knows no engine and no slots."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import LoraConfig, get_peft_model

from worker import objectives
from worker.forwards import Forward, Scoring, finished
from worker.oracle.dequantised import load_model
from worker.types import Greedy, Layout, LogProbs, Loss, Trial, blank, unseen

ADAPTERS = 8  # PEFT adapters kept, one for each layout; the oldest makes room


class TorchScorer:
    """Scores trials with plain padded forward passes. Slow and simple on purpose: `EngineScorer` is tested against it.
    Where an adapter has an invocation, it is PEFT that looks for it and says where the adapter acts.

    `path` is a local model folder, `dtype` a torch dtype's name, `threads` bounds torch's own threads (None: as is),
    `batch` is how many sequences are padded together.
    """

    capacity = 1

    def __init__(self, path: str | Path, dtype: str = "float32", threads: int | None = None, batch: int = 16) -> None:
        if threads is not None:
            torch.set_num_threads(threads)
        base: Any = load_model(path, dtype)
        self._base = base.eval().requires_grad_(False)
        self._peft: Any = None
        self._linears = {name for name, m in base.named_modules() if isinstance(m, torch.nn.Linear)}
        self._adapters: dict[Layout, str] = {}
        self._registered = 0
        self._batch = batch

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """One loss a trial, in order. Raises ValueError for a layout that names a module the model lacks."""
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        """The same, a trial at a time."""
        forwards, out, greedy = self._forwards(trials)
        return Scoring(forwards, lambda: objectives.losses(trials, out, greedy))

    def logprobs(self, trials: Sequence[Trial]) -> list[LogProbs]:
        """Natural-log probability of every target, float32, in the shape of the trials' candidates."""
        forwards, out, _ = self._forwards(trials)
        for forward in forwards:
            forward.act()
        return out

    def _forwards(self, trials: Sequence[Trial]) -> tuple[list[Forward], list[LogProbs], list[Greedy | None]]:
        """A forward for every trial, and what they will have filled."""
        out, greedy = blank(trials), unseen(trials)
        forwards = [
            Forward(frozenset((number,)), max(1, trial.tokens), partial(self._fill, trial, places, best))
            for number, (trial, places, best) in enumerate(zip(trials, out, greedy, strict=True))
        ]
        return forwards, out, greedy

    def close(self) -> None:
        self._base = self._peft = None
        self._adapters.clear()

    @torch.inference_mode()
    def _fill(self, trial: Trial, places: LogProbs, best: Greedy | None) -> None:
        flat = [(e, s, ids) for e, ex in enumerate(trial.examples) for s, ids in enumerate(ex.sequences)]
        for start in range(0, len(flat), self._batch):
            part = flat[start : start + self._batch]
            logits = self._logits(trial, [ids for _, _, ids in part])
            for row, (e, s, _) in zip(logits, part, strict=True):
                for c, candidate in enumerate(trial.examples[e].candidates):
                    if candidate.sequence == s:
                        read = row[torch.tensor(candidate.positions, dtype=torch.long)].float()
                        targets = torch.tensor(candidate.targets, dtype=torch.long)
                        chosen = torch.log_softmax(read, dim=-1)
                        places[e][c] = chosen.gather(1, targets[:, None])[:, 0].numpy()
                        if best is not None:
                            best[e][c] = (read.argmax(-1) == targets).numpy()  # of equals the first

    def _logits(self, trial: Trial, sequences: list[NDArray[np.int32]]) -> torch.Tensor:
        """[sequences, longest, vocab] logits of right-padded sequences; the padding lies behind what is read."""
        longest = max(len(ids) for ids in sequences)
        # PEFT looks for the invocation in the padding as well.
        invocation = () if trial.layout is None else trial.layout.invocation
        filler = next(i for i in range(len(invocation) + 1) if i not in invocation)
        ids = torch.full((len(sequences), longest), filler, dtype=torch.long)
        mask = torch.zeros_like(ids)
        for row, sequence in enumerate(sequences):
            ids[row, : len(sequence)] = torch.tensor(sequence)
            mask[row, : len(sequence)] = 1
        if trial.layout is not None and trial.params is not None:
            self._wear(trial.layout, trial.params)
            logits: torch.Tensor = self._peft(input_ids=ids, attention_mask=mask, use_cache=False).logits
        elif self._peft is not None:
            with self._peft.disable_adapter():
                logits = self._peft(input_ids=ids, attention_mask=mask, use_cache=False).logits
        else:
            logits = self._base(input_ids=ids, attention_mask=mask, use_cache=False).logits
        return logits

    def _wear(self, layout: Layout, params: NDArray[np.float32]) -> None:
        """Write a probe's tensors into the PEFT adapter of its layout and make that adapter the active one."""
        if layout not in self._adapters:
            self._register(layout)
        name = self._adapters[layout]
        self._peft.set_adapter(name)
        inner = self._peft.base_model.model
        for module, a, b in layout.pairs(params):
            layer = inner.get_submodule(module.name)
            layer.lora_A[name].weight.data.copy_(torch.tensor(a))
            layer.lora_B[name].weight.data.copy_(torch.tensor(b))

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
        self._peft.requires_grad_(False)
        self._adapters[layout] = name
