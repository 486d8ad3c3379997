"""Scores all trials of a wave in one forward pass of a resident vLLM engine. Knows trials and slots, no vLLM."""

import gc
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from worker.objectives import reduce
from worker.scoring.packing import LogProbs, Wave, blank, wanted, waves
from worker.scoring.torch_scorer import TorchScorer
from worker.scoring.vllm_engine import Engine
from worker.scoring.vllm_lora import SlotBank, Worn
from worker.types import Candidate, Example, Layout, Loss, Module, Trial

LOGITS = 1 << 24  # logits held at once: 64 MiB in fp32


class SelfCheckFailed(RuntimeError):
    """The engine's losses are not the oracle's: nothing may be trained on it."""


class VllmScorer:
    """A `Scorer` on one in-process vLLM engine, from construction to `close`.

    `path` is a local model folder; `slots` probes of rank at most `max_rank` share a forward pass of at most
    `max_tokens` tokens (a single longer sequence, up to the model's context, has a pass to itself); `dtype` is the
    model's; `serve_slots` adapters may be served by the same engine beside those scored.
    """

    def __init__(
        self,
        path: str | Path,
        *,
        slots: int = 16,
        max_rank: int = 64,
        max_tokens: int = 4096,
        dtype: str = "float32",
        serve_slots: int = 1,
    ) -> None:
        self._path = Path(path)
        self._max_rank = max_rank
        self._max_tokens = max_tokens
        self._dtype = dtype
        self.engine = Engine(path, dtype=dtype, max_rank=max_rank, max_tokens=max_tokens, serve_slots=serve_slots)
        self._bank = SlotBank(slots, self.engine.dtype, self.engine.device)
        self._checked: set[Layout] = set()

    @property
    def capacity(self) -> int:
        """Probes that fit one forward pass."""
        return self._bank.slots

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """One loss a trial, in order; not finite where the engine's answer was not. Raises ValueError for a trial that
        the model cannot take: unknown module or shape, rank too high, sequence too long, token out of range."""
        return [reduce(t, lp) for t, lp in zip(trials, self.logprobs(trials), strict=True)]

    def logprobs(self, trials: Sequence[Trial]) -> list[LogProbs]:
        """Natural-log probability of every target, float32, in the shape of the trials' candidates."""
        for trial in trials:
            self._check(trial)
        out = blank(trials)
        for wave in waves(trials, self._bank.slots, self._max_tokens):
            self._run(trials, wave, out)
        return out

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        self.engine.close()

    def self_check(self, seed: int = 0, tolerance: float = 1e-4) -> dict[str, float | str]:
        """Score a few random probes here and with transformers and PEFT, loaded for the occasion and dropped again.

        Returns what to record of this engine: the largest difference of a log-probability (nats), dtype, versions.
        Raises SelfCheckFailed where it exceeds `tolerance`, which suits fp32 (measured: below 1e-5).
        """
        trials = self._probes(np.random.default_rng(seed))
        mine = self.logprobs(trials)
        oracle = TorchScorer(self._path, self._dtype)
        theirs = oracle.logprobs(trials)
        oracle.close()
        del oracle
        gc.collect()
        pairs = [
            (a, b)
            for x, y in zip(mine, theirs, strict=True)
            for e, f in zip(x, y, strict=True)
            for a, b in zip(e, f, strict=True)
        ]
        worst = max(float(np.abs(a - b).max()) for a, b in pairs)
        if not worst <= tolerance:
            raise SelfCheckFailed(
                f"log-probabilities differ from transformers by up to {worst:.3g} nats (tolerance {tolerance:g}, "
                f"{self._dtype}, {self.engine.versions()}): this engine must not train"
            )
        return {"max_difference": worst, "dtype": self._dtype, **self.engine.versions()}

    def _run(self, trials: Sequence[Trial], wave: Wave, out: list[LogProbs]) -> None:
        sequences: list[NDArray[np.int32]] = []
        worn: list[Worn] = []
        start = slot = 0
        for segment in wave.segments:
            trial = trials[segment.trial]
            sequences.extend(trial.examples[e].sequences[s] for e, s in segment.places)
            if trial.layout is not None and trial.params is not None:
                pairs = self._bank.write(slot, trial.layout, trial.params)
                worn.append(Worn(start, start + segment.tokens, pairs, trial.layout.scaling))
                slot += 1
            start += segment.tokens
        want = wanted(trials, wave)
        if not want.cuts:
            return
        hidden = self.engine.forward(sequences, worn)
        chosen = self._gather(hidden, want.rows, want.which, want.targets)
        for trial_number, example, candidate, first, last in want.cuts:
            out[trial_number][example][candidate] = chosen[first:last]

    def _gather(
        self, hidden: torch.Tensor, rows: NDArray[np.int64], which: NDArray[np.int64], targets: NDArray[np.int64]
    ) -> NDArray[np.float32]:
        """log softmax(logits[rows[which[j]]])[targets[j]] for every j, fp32, a bounded number of rows at a time."""
        out = np.empty(len(targets), np.float32)
        chunk = max(1, LOGITS // self.engine.vocab)
        by_row = np.argsort(which, kind="stable")
        bounds = np.searchsorted(which[by_row], np.arange(0, len(rows) + chunk, chunk))
        for k, low in enumerate(range(0, len(rows), chunk)):
            part = torch.from_numpy(rows[low : low + chunk]).to(hidden.device)
            logits = self.engine.logits(hidden[part]).float()
            norms = torch.logsumexp(logits, dim=-1)
            mine = by_row[bounds[k] : bounds[k + 1]]
            at = torch.from_numpy(which[mine] - low).to(hidden.device)
            values = logits[at, torch.from_numpy(targets[mine]).to(hidden.device)] - norms[at]
            out[mine] = values.cpu().numpy()
        return out

    def _check(self, trial: Trial) -> None:
        for example in trial.examples:
            for ids in example.sequences:
                if not 0 < len(ids) <= self.engine.context:
                    raise ValueError(f"a sequence has {len(ids)} tokens; the model takes 1 to {self.engine.context}")
                if ids.min() < 0 or ids.max() >= self.engine.vocab:
                    raise ValueError(f"a token id is outside the vocabulary of {self.engine.vocab}")
            for c in example.candidates:
                if len(c.targets) and (c.targets.min() < 0 or c.targets.max() >= self.engine.vocab):
                    raise ValueError(f"a target id is outside the vocabulary of {self.engine.vocab}")
                if len(c.positions) and not 0 <= c.positions.min() <= c.positions.max() < len(
                    example.sequences[c.sequence]
                ):
                    raise ValueError("a scored position lies outside its sequence")
        if trial.params is None:
            return
        if trial.layout is None or trial.params.shape != (trial.layout.size,):
            raise ValueError("a probe's parameters do not fit its layout")
        if trial.layout in self._checked:
            return
        if trial.layout.rank > self._max_rank:
            raise ValueError(f"rank {trial.layout.rank} exceeds this engine's {self._max_rank}")
        for m in trial.layout.modules:
            if self.engine.modules.get(m.name) != (m.inputs, m.outputs):
                raise ValueError(f"the engine has no linear {m.name!r} of {m.inputs} inputs and {m.outputs} outputs")
        self._checked.add(trial.layout)

    def _probes(self, rng: np.random.Generator) -> list[Trial]:
        """A base trial and two probes that fill every module, of different ranks, on random tokens."""
        modules = tuple(Module(name, *shape) for name, shape in self.engine.modules.items())
        length = min(24, self.engine.context)
        examples = tuple(self._text(rng, n) for n in (length, length // 2, length))
        out = [Trial(None, None, examples, "lm")]
        for rank in (min(2, self._max_rank), min(8, self._max_rank)):
            layout = Layout(rank, 16.0, modules)
            params = np.concatenate(
                [rng.standard_normal(int(np.prod(s))).astype(np.float32) / s[1] for s in layout.shapes]
            )
            out.append(Trial(layout, params, examples, "lm"))
        return out

    def _text(self, rng: np.random.Generator, length: int) -> Example:
        ids = rng.integers(0, self.engine.vocab, length + 1, dtype=np.int32)
        return Example((ids[:-1],), (Candidate(0, np.arange(length, dtype=np.int32), ids[1:]),))
