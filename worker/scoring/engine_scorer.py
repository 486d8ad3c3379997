"""Scores all trials of a wave in one forward pass of a resident engine. Knows trials and slots, no vLLM.

What it is given goes one way: trials are checked, packed into waves, each wave is laid out, and what was laid is all
that adapters, attention and log-probabilities are made of.
"""

import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from worker import objectives
from worker.engine.attention import BranchAttention
from worker.engine.controller import SIZES, Curve, measured
from worker.engine.engine import Engine
from worker.engine.lora import SlotBank, Worn
from worker.engine.owner import Owner
from worker.engine.prompt_cache import PromptCache
from worker.forwards import Forward, Scoring, finished
from worker.scoring.check_trials import TrialCheck
from worker.scoring.divergences import divergences
from worker.scoring.entries import entries
from worker.scoring.laying import Laid, lay
from worker.scoring.packing import Piece, Segment, Wave, waves
from worker.scoring.prompts import prompts
from worker.scoring.wear import wear
from worker.types import Greedy, LogProbs, Loss, Trial, blank, unseen

LOGITS = 1 << 24  # logits held at once: 64 MiB in fp32


class EngineScorer:
    """A `Scorer` on one in-process engine, from construction to `close`, with a thread of its own (`owner`); each wave
    is an act on it, which pauses where there is something to serve.

    `path` is a local model folder; `slots` probes of rank at most `max_rank` share a forward pass of at most
    `max_tokens` tokens (a single longer sequence, up to the model's context, has a pass to itself); `dtype` is the
    model's. Keys and values of prompts that adapters of activation `answer` continue, and hidden states below what
    adapters of the last layers act on, take at most `prompt_bytes`, a quarter of it for the wave in hand. The same
    engine serves beside: `serve_slots` adapters, `serve_tokens` in a step, keys and values of `serve_cache` tokens, at
    least of one context; `train_share_min` of the time is scoring's where both want it. `name` is what vLLM's own
    metrics call the model (None: they are off); with `graphs` it serves by its own LoRA kernels in CUDA graphs.
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
        serve_tokens: int = 256,
        serve_cache: int = 0,
        train_share_min: float = 0.0,
        prompt_bytes: int = 1 << 30,
        name: str | None = None,
        graphs: bool = False,
    ) -> None:
        self.path, self.dtype, self.max_rank = Path(path), dtype, max_rank
        self._max_tokens = max_tokens
        self.owner = Owner(train_share_min)
        try:
            self.engine = self.owner.run(
                lambda: Engine(
                    path, self.owner, dtype=dtype, max_rank=max_rank, serve_tokens=serve_tokens,
                    serve_slots=serve_slots, serve_cache=serve_cache, name=name, graphs=graphs,
                )
            )  # fmt: skip
        except Exception:
            self.owner.close()
            raise
        self._check = TrialCheck(self.engine.modules, max_rank, self.engine.context, self.engine.vocab)
        self._bank = SlotBank(slots, self.engine.dtype, self.engine.device)
        self.prompt_cache: PromptCache[torch.Tensor] = PromptCache(prompt_bytes * 3 // 4)
        self._max_prompts = prompt_bytes // 4 // self.engine.token_bytes
        self._entry_bytes = self.engine.width * self.engine.dtype.itemsize

    @property
    def capacity(self) -> int:
        """Probes that fit one forward pass."""
        return self._bank.slots

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """One loss a trial, in order; not finite where the engine's answer was not. Raises ValueError for a trial that
        the model cannot take: unknown module or shape, rank too high, sequence too long, token out of range."""
        return finished(self.start(trials))

    def start(self, trials: Sequence[Trial]) -> Scoring:
        """The same, a wave at a time; raises as `score` does, here."""
        forwards, out, greedy = self._forwards(trials)
        return Scoring(forwards, lambda: objectives.losses(trials, out, greedy))

    def logprobs(self, trials: Sequence[Trial]) -> list[LogProbs]:
        """Natural-log probability of every target, float32, in the shape of the trials' candidates."""
        forwards, out, _ = self._forwards(trials)
        for forward in forwards:
            forward.act()
        return out

    def _forwards(self, trials: Sequence[Trial]) -> tuple[list[Forward], list[LogProbs], list[Greedy | None]]:
        """The waves of `trials`, and what they will have filled."""
        self._check(trials)
        out, greedy = blank(trials), unseen(trials)
        width = max((t.layout.size for t in trials if t.layout is not None), default=0)
        packed = waves(trials, self._bank.room(width), self._max_tokens, self._max_prompts)
        forwards = [
            Forward(frozenset(s.number for s in w.segments), w.tokens, partial(self._fill, out, greedy, w, width))
            for w in packed
        ]
        return forwards, out, greedy

    def _fill(self, out: list[LogProbs], greedy: list[Greedy | None], wave: Wave, width: int) -> None:
        """One wave, an act of its own. Others may have been scored since it was packed: the bank fits it anew."""
        laid = lay(wave)
        if not laid.cuts:
            return

        def scored() -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
            self._bank.fit(width)
            hidden = self._hidden(laid)
            return self._drifted(hidden, laid) if wave.drift else self._chosen(hidden, laid)

        chosen, likeliest = self.owner.run(scored)
        for trial, example, candidate, start, stop in laid.cuts:
            out[trial][example][candidate] = chosen[start:stop]
            if (best := greedy[trial]) is not None:
                best[example][candidate] = likeliest[start:stop]

    def curve(self, most: float = 1.0) -> Curve:
        """What a forward of the bare base takes by its tokens, measured now; ends after about `most` seconds."""
        return self.owner.run(lambda: measured(self._took, most, [n for n in SIZES if n <= self.engine.context]))

    def _took(self, tokens: int) -> float:
        begun = time.perf_counter()
        self.engine.forward(np.zeros(tokens, np.int32), [tokens], ())
        return time.perf_counter() - begun

    def close(self) -> None:
        """Stop the engine, give its memory back and end its thread."""
        if self.owner.failed is None:
            self.owner.run(self.engine.close)
        self.owner.close()

    def _hidden(self, laid: Laid) -> torch.Tensor:
        """Hidden states [tokens, width] of a wave, its probes worn."""
        attention = self._attention(laid) if laid.branched else None
        if not laid.below:
            return self._forwarded(laid, attention, wear(self._bank, laid.segments, self.engine.pause))
        entry = entries(laid.pieces, laid.below, self.prompt_cache, partial(self._below, laid), self._entry_bytes)
        with self.engine.depth.entering(laid.below, entry):
            return self._forwarded(laid, attention, wear(self._bank, laid.segments, self.engine.pause))

    def _below(self, laid: Laid, pieces: Sequence[tuple[str, Piece]]) -> list[torch.Tensor]:
        """What the bare base has of each piece [tokens, width] where it enters layer `laid.below`."""
        alone, attention = self._alone(laid, pieces)
        with self.engine.depth.leaving(laid.below) as taken:
            self._forwarded(alone, attention, ())
        return [taken[0][start:stop].contiguous() for start, stop in alone.spans]

    def _alone(self, laid: Laid, pieces: Sequence[tuple[str, Piece]]) -> tuple[Laid, BranchAttention | None]:
        """These pieces of a wave as they are laid for the bare base, in this order."""
        bare = [Trial(None, None, (piece.example,), "lm", scope) for scope, piece in pieces]
        segments = [Segment(i, bare[i], (piece,)) for i, (_, piece) in enumerate(pieces)]
        alone = lay(Wave(tuple(segments), laid.branched))
        return alone, self._attention(alone) if alone.branched else None

    def _forwarded(self, laid: Laid, attention: BranchAttention | None, worn: Sequence[Worn]) -> torch.Tensor:
        if attention is not None:
            return self.engine.forward_branched(laid.ids, laid.positions, attention, worn)
        return self.engine.forward(laid.ids, [stop - start for start, stop in laid.spans], worn)

    def _attention(self, laid: Laid) -> BranchAttention:
        numbers, caches = prompts(
            laid.continued,
            self.prompt_cache,
            self.engine.keys_and_values,
            token_bytes=self.engine.token_bytes,
            max_tokens=self._max_tokens,
        )
        engine = self.engine
        return BranchAttention(
            laid.spans, laid.positions, laid.branches, numbers, caches, engine.device, engine.together, engine.pause
        )

    def _drifted(self, hidden: torch.Tensor, laid: Laid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """-KL(base || probe) of the row that each target reads, fp32; none is said to be the likeliest."""
        bare = self._forwarded(*self._alone(laid, laid.pieces), ())
        found = divergences(self.engine, bare, hidden, laid.rows, LOGITS)
        return (-found)[laid.which].astype(np.float32), np.zeros(len(laid.which), np.bool_)

    def _chosen(self, hidden: torch.Tensor, laid: Laid) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """log softmax(logits[rows[which[j]]])[targets[j]] for every j, fp32, a bounded number of rows at a time; and
        whether no token before targets[j] has as large a logit and none a larger, where that is asked."""
        rows, which, targets = laid.rows, laid.which, laid.targets
        out, likeliest = np.empty(len(targets), np.float32), np.zeros(len(targets), np.bool_)
        chunk = max(1, min(self.engine.rows, LOGITS // self.engine.vocab))
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
            if laid.greedy[mine].any():
                likeliest[mine] = logits.argmax(-1)[at].cpu().numpy() == targets[mine]
        return out, likeliest
