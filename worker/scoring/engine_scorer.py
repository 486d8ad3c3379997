"""Scores all trials of a wave in one forward pass of a resident vLLM engine. Knows trials and slots, no vLLM."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from worker import objectives
from worker.engine.attention import BranchAttention
from worker.engine.engine import Engine
from worker.engine.lora import SlotBank, Worn
from worker.engine.prompt_cache import PromptCache
from worker.scoring.packing import Laid, Wave, lay, waves
from worker.types import Example, Layout, LogProbs, Loss, Trial, blank

LOGITS = 1 << 24  # logits held at once: 64 MiB in fp32


class EngineScorer:
    """A `Scorer` on one in-process vLLM engine, from construction to `close`.

    `path` is a local model folder; `slots` probes of rank at most `max_rank` share a forward pass of at most
    `max_tokens` tokens (a single longer sequence, up to the model's context, has a pass to itself); `dtype` is the
    model's; `serve_slots` adapters may be served by the same engine beside those scored. Keys and values of prompts
    that adapters of activation `answer` continue take at most `prompt_bytes`, a quarter of it for the wave in hand.
    `name` is what vLLM's own metrics call the model (None: they are off).
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
        prompt_bytes: int = 1 << 30,
        name: str | None = None,
    ) -> None:
        self.path, self.dtype, self.max_rank = Path(path), dtype, max_rank
        self._max_tokens = max_tokens
        self.engine = Engine(
            path, dtype=dtype, max_rank=max_rank, max_tokens=max_tokens, serve_slots=serve_slots, name=name
        )
        self._bank = SlotBank(slots, self.engine.dtype, self.engine.device)
        self._checked: set[Layout] = set()
        self.prompts: PromptCache[torch.Tensor] = PromptCache(prompt_bytes * 3 // 4)
        self._max_prompts = prompt_bytes // 4 // self.engine.prompt_bytes

    @property
    def capacity(self) -> int:
        """Probes that fit one forward pass."""
        return self._bank.slots

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """One loss a trial, in order; not finite where the engine's answer was not. Raises ValueError for a trial that
        the model cannot take: unknown module or shape, rank too high, sequence too long, token out of range."""
        return [objectives.loss(t, lp) for t, lp in zip(trials, self.logprobs(trials), strict=True)]

    def logprobs(self, trials: Sequence[Trial]) -> list[LogProbs]:
        """Natural-log probability of every target, float32, in the shape of the trials' candidates."""
        known: set[int] = set()  # the same rows come once a probe
        for trial in trials:
            if id(trial.examples) not in known:
                for example in trial.examples:
                    self._check_example(example)
                known.add(id(trial.examples))
            self._check(trial)
        out = blank(trials)
        slots = self._bank.fit(max((t.layout.size for t in trials if t.layout is not None), default=0))
        for wave in waves(trials, slots, self._max_tokens, self._max_prompts):
            self._run(trials, wave, out)
        return out

    def close(self) -> None:
        """Stop the engine and give its memory back."""
        self.engine.close()

    def _run(self, trials: Sequence[Trial], wave: Wave, out: list[LogProbs]) -> None:
        laid = lay(trials, wave)
        if not laid.cuts:
            return
        worn = self._worn(trials, wave)
        if wave.branched:
            hidden = self.engine.forward_branched(laid.ids, laid.positions, self._attention(trials, wave, laid), worn)
        else:
            hidden = self.engine.forward(laid.ids, [stop - start for start, stop in laid.spans], worn)
        chosen = self._gather(hidden, laid.rows, laid.which, laid.targets)
        for trial_number, example, candidate, first, last in laid.cuts:
            out[trial_number][example][candidate] = chosen[first:last]

    def _worn(self, trials: Sequence[Trial], wave: Wave) -> list[Worn]:
        """Write the wave's probes to slots; neighbours of one layout and length are worn together."""
        runs: list[tuple[Layout, int, int, int]] = []  # layout, tokens of each, first token, first slot
        start = slot = 0
        ends: list[int] = []
        for segment in wave.segments:
            trial = trials[segment.trial]
            if trial.layout is not None and trial.params is not None:
                self._bank.write(slot, trial.layout, trial.params)
                alike = runs and runs[-1][:2] == (trial.layout, segment.tokens) and ends[-1] == start
                if not alike:
                    runs.append((trial.layout, segment.tokens, start, slot))
                    ends.append(start)
                ends[-1] = start + segment.tokens
                slot += 1
            start += segment.tokens
        return [
            Worn(first, end, adapters, self._bank.pairs(at, adapters, layout), layout.scaling)
            for (layout, tokens, first, at), end in zip(runs, ends, strict=True)
            for adapters in [(end - first) // tokens]
        ]

    def _attention(self, trials: Sequence[Trial], wave: Wave, laid: Laid) -> BranchAttention:
        """The attention of a branched wave, its prompts found or computed."""
        wanted: dict[bytes, Example] = {}
        missing: dict[tuple[str, bytes], Example] = {}
        caches: dict[bytes, torch.Tensor] = {}
        for piece in wave.pieces:
            trial = trials[piece.trial]
            example = trial.examples[piece.example]
            claim = trial.scope, example.prompt_key
            if not example.start or claim in missing:
                continue
            wanted[example.prompt_key] = example
            found = self.prompts.get(*claim)
            if found is None:
                missing[claim] = example
            else:
                caches[example.prompt_key] = found
        for claim, cache in self._computed(missing):
            size = len(missing[claim].prompt) * self.engine.prompt_bytes
            caches[claim[1]] = self.prompts.put(*claim, cache, size)
        number = {key: i for i, key in enumerate(wanted)}
        prompts = [number.get(trials[p.trial].examples[p.example].prompt_key, -1) for p in wave.pieces]
        return BranchAttention(
            laid.spans,
            laid.positions,
            laid.branches,
            prompts,
            [caches[key] for key in wanted],
            self.engine.device,
            self.engine.together,
        )

    def _computed(
        self, missing: Mapping[tuple[str, bytes], Example]
    ) -> Iterator[tuple[tuple[str, bytes], torch.Tensor]]:
        """Each claim with its prompt's keys and values, as many prompts a forward pass as fit one."""
        claims = list(missing)
        while claims:
            tokens, part = 0, list[tuple[str, bytes]]()
            while claims and (not part or tokens + missing[claims[0]].start <= self._max_tokens):
                tokens += missing[claims[0]].start
                part.append(claims.pop(0))
            yield from zip(part, self.engine.prompts([missing[c].prompt for c in part]), strict=True)

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
        if trial.params is None:
            return
        invocation = () if trial.layout is None else trial.layout.invocation
        for example in trial.examples:
            if example.start and not invocation:
                raise ValueError("an example says where its adapter starts, but the adapter acts on every token")
            at = example.sequences[0][example.start : example.start + len(invocation)]
            if invocation and tuple(at.tolist()) != invocation:
                raise ValueError("the adapter would start at other tokens than its invocation")
        if trial.layout is None or trial.params.shape != (trial.layout.size,):
            raise ValueError("a probe's parameters do not fit its layout")
        if trial.layout in self._checked:
            return
        if trial.layout.rank > self.max_rank:
            raise ValueError(f"rank {trial.layout.rank} exceeds this engine's {self.max_rank}")
        for m in trial.layout.modules:
            if self.engine.modules.get(m.name) != (m.inputs, m.outputs):
                raise ValueError(f"the engine has no linear {m.name!r} of {m.inputs} inputs and {m.outputs} outputs")
        self._checked.add(trial.layout)

    def _check_example(self, example: Example) -> None:
        for ids in example.sequences:
            if not 0 < len(ids) <= self.engine.context:
                raise ValueError(f"a sequence has {len(ids)} tokens; the model takes 1 to {self.engine.context}")
            if ids.min() < 0 or ids.max() >= self.engine.vocab:
                raise ValueError(f"a token id is outside the vocabulary of {self.engine.vocab}")
        if not 0 <= example.start < min(map(len, example.sequences)):
            raise ValueError("an adapter starts inside its sequence")
        if len(example.sequences) > 1 and example.start > example.shared:
            raise ValueError("an adapter starts within what its sequences have in common")
        for c in example.candidates:
            if len(c.targets) and (c.targets.min() < 0 or c.targets.max() >= self.engine.vocab):
                raise ValueError(f"a target id is outside the vocabulary of {self.engine.vocab}")
            if len(c.positions) and not (
                example.start <= c.positions.min() <= c.positions.max() < len(example.sequences[c.sequence])
            ):
                raise ValueError("a scored position lies outside its sequence, or before its adapter starts")
