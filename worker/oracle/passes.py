"""Passes through a transformers model that wears a probe, and their derivatives. Knows no objective: what is
differentiated is a weighted sum of log-probabilities, the weights a function of them."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.autograd import forward_ad
from torch.nn.attention import SDPBackend, sdpa_kernel

from worker.oracle import prompts
from worker.oracle.pieces import Padded, padded
from worker.oracle.prompts import Kept
from worker.oracle.worn import Wardrobe
from worker.types import Example, Layout, Params, Trial

Slopes = Callable[[NDArray[np.float32]], NDArray[np.float64]]


@dataclass(frozen=True)
class Passed:
    """What came of a pass: of every target its log-probability and whether it is the likeliest token; and, where they
    were asked for, the derivatives of the examples' summed loss by the probe's parameters [P] and along its tangent."""

    logprobs: NDArray[np.float32]
    likeliest: NDArray[np.bool_]
    gradient: Params | None = None
    slope: float | None = None


class Passes:
    """One model and its adapters. `kept` keeps prompts that probes continue; None: nothing is continued."""

    def __init__(self, base: Any, kept: Kept | None) -> None:
        self._wardrobe = Wardrobe(base)
        self._kept = kept
        self._wanted: torch.Tensor | None = None
        # Logits are made where they are read, and nowhere else.
        base.get_output_embeddings().register_forward_pre_hook(self._only_wanted)

    def close(self) -> None:
        del self._wardrobe

    def run(self, trial: Trial, examples: Sequence[Example], slopes: Slopes) -> Passed:
        """One pass of these examples of the trial; `slopes` gives the derivative of their summed loss by each
        log-probability."""
        laid, known = self._laid(trial, examples)
        if trial.drift:
            return self._drifted(trial, laid, known)
        if trial.layout is None or trial.params is None:
            with torch.inference_mode(), self._wardrobe.bare():
                return _passed(*self._read(laid, known))
        layout = trial.layout if known is None else _plain(trial.layout)
        tensors = self._wardrobe.wear(layout, trial.params)
        if trial.gradient:
            return self._backward(trial, tensors, laid, known, slopes)
        if trial.tangent is not None:
            return self._forward(trial, tensors, laid, known, slopes)
        with torch.inference_mode():
            return _passed(*self._read(laid, known))

    def _laid(self, trial: Trial, examples: Sequence[Example]) -> tuple[Padded, list[torch.Tensor | None] | None]:
        """The batch, and the prompts that its rows continue, None where nothing is continued."""
        # PEFT looks for the invocation in the padding as well.
        invocation = () if trial.layout is None else trial.layout.invocation
        filler = next(i for i in range(len(invocation) + 1) if i not in invocation)
        if self._kept is None or not any(example.start for example in examples):
            return padded(examples, filler, continued=False), None
        with self._wardrobe.bare():
            each = prompts.of(self._wardrobe.model, examples, self._kept, trial.scope)
        known = [prompt for prompt, e in zip(each, examples, strict=True) for _ in e.sequences]
        return padded(examples, filler, continued=True), known

    def _drifted(self, trial: Trial, laid: Padded, known: list[torch.Tensor | None] | None) -> Passed:
        """Minus KL(base || probe) of what each target is drawn from, in float64 from the logits on."""
        with torch.inference_mode(), self._wardrobe.bare():
            bare = worn = self._logits(laid, known).double().log_softmax(-1)
        if trial.layout is not None and trial.params is not None:
            self._wardrobe.wear(trial.layout if known is None else _plain(trial.layout), trial.params)
            with torch.inference_mode():
                worn = self._logits(laid, known).double().log_softmax(-1)
        with torch.inference_mode():
            each = torch.nn.functional.kl_div(worn, bare, reduction="none", log_target=True).sum(-1)[laid.which]
            return _passed(-each.float(), torch.zeros(len(each), dtype=torch.bool))

    def _backward(
        self,
        trial: Trial,
        tensors: list[torch.nn.Parameter],
        laid: Padded,
        known: list[torch.Tensor | None] | None,
        slopes: Slopes,
    ) -> Passed:
        """Backpropagation down to tensor number `trial.since`, no further."""
        moved = tensors[trial.since :]
        for tensor in moved:
            tensor.requires_grad_(True)
        with torch.enable_grad():
            chosen, likeliest = self._read(laid, known)
        found = _passed(chosen, likeliest)
        weights = torch.from_numpy(slopes(found.logprobs)).to(chosen.dtype)
        whole = np.zeros(trial.layout.size if trial.layout else 0, np.float32)
        parts = torch.autograd.grad(chosen, moved, weights)
        whole[len(whole) - sum(p.numel() for p in parts) :] = torch.cat([p.flatten().float() for p in parts]).numpy()
        slope = None if trial.tangent is None else float(whole.astype(float) @ trial.tangent.astype(float))
        return Passed(found.logprobs, found.likeliest, whole, slope)

    def _forward(
        self,
        trial: Trial,
        tensors: list[torch.nn.Parameter],
        laid: Padded,
        known: list[torch.Tensor | None] | None,
        slopes: Slopes,
    ) -> Passed:
        """Forward-mode differentiation along the tangent: no activation is kept. Fused attention has none,
        so here it is not fused."""
        assert trial.layout is not None
        assert trial.tangent is not None
        names = self._wardrobe.names(tensors)
        with forward_ad.dual_level(), torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            duals = {
                name: forward_ad.make_dual(  # type: ignore[no-untyped-call]
                    tensor.detach(), torch.tensor(trial.layout.tensor(trial.tangent, i)).to(tensor.dtype)
                )
                for i, (name, tensor) in enumerate(zip(names, tensors, strict=True))
            }
            chosen, likeliest = self._read(laid, known, duals)
            value, tangent = forward_ad.unpack_dual(chosen)  # type: ignore[no-untyped-call]
        found = _passed(value, likeliest)
        along = tangent.double().numpy() if tangent is not None else np.zeros(len(found.logprobs))
        return Passed(found.logprobs, found.likeliest, slope=float(slopes(found.logprobs) @ along))

    def _read(
        self, laid: Padded, known: list[torch.Tensor | None] | None, instead: dict[str, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Of every target its log-probability, and whether it is the first of the likeliest tokens, with `instead` of
        parameters of these names."""
        logits = self._logits(laid, known, instead)
        logs = torch.log_softmax(logits, dim=-1)
        return logs[laid.which, laid.targets], logits.argmax(-1)[laid.which] == laid.targets

    def _logits(
        self, laid: Padded, known: list[torch.Tensor | None] | None, instead: dict[str, torch.Tensor] | None = None
    ) -> torch.Tensor:
        """Logits [wanted, vocab] in float32."""
        asked: dict[str, Any] = {"input_ids": laid.ids, "attention_mask": laid.mask, "use_cache": False}
        if known is not None:
            cache, before = prompts.continued(known)
            mask = torch.cat((before, laid.mask), 1)
            asked |= {
                "attention_mask": mask,
                "position_ids": laid.positions,
                "past_key_values": cache,
                "use_cache": True,
            }
        model = self._wardrobe.model
        with self._reading(laid.wanted):
            answer = torch.func.functional_call(model, instead, kwargs=asked) if instead else model(**asked)
        logits: torch.Tensor = answer.logits.float()
        return logits

    @contextmanager
    def _reading(self, wanted: torch.Tensor) -> Iterator[None]:
        self._wanted = wanted
        try:
            yield
        finally:
            self._wanted = None

    def _only_wanted(self, _: Any, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        """Of hidden states [sequences, tokens, width] the rows that are read, [wanted, width]; for prompts, none."""
        hidden = args[0].flatten(0, -2)
        return (hidden[:0] if self._wanted is None else hidden[self._wanted], *args[1:])


def _plain(layout: Layout) -> Layout:
    """The same adapter acting on every token that it is shown: behind a prompt that is continued, that is all."""
    return Layout(layout.rank, layout.alpha, layout.modules)


def _passed(chosen: torch.Tensor, likeliest: torch.Tensor) -> Passed:
    return Passed(chosen.detach().numpy(), likeliest.numpy())
