"""What becomes of an adapter's rank when LOZO redraws V: the figures of decision 0003. Knows torch, no engine.

`python -m bench.studies.lozo_refresh` trains the demo's sentiment task each way at several learning rates and seeds. To
fit minutes on a busy CPU it is a proxy in one respect: the adapter acts on the last layer's o_proj, gate_proj, up_proj
and down_proj only. What they are given at the scored position is then the base model's own, computed once, and the loss
of a probe is still exactly the model's.
"""

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch

from bench.contenders.loops import BatchedScorer, padded
from bench.report.measure import RESULTS, machine
from cli.demo.datasets import sentiment
from cli.local.demo_model import DEMO_MODEL, demo_model
from db.contract import methods
from db.contract.rows.files import parse
from db.contract.spec import AdapterSpec, JobSpec
from db.contract.tokens.base_model import Base, open_base
from db.contract.tokens.encoding import encode
from worker import objectives
from worker.runs import cohort
from worker.runs.data import Dataset, example
from worker.runs.run import Run, start
from worker.types import Loss, Trial
from worker.zo.methods.lozo import State

TARGETS: Final = ("self_attn.o_proj", "mlp.gate_proj", "mlp.up_proj", "mlp.down_proj")
RANK, WINDOW, NU, BATCH = 8, 2, 50, 16
WAYS: Final[dict[str, dict[str, Any]]] = {
    "bank": {"refresh": "bank"},
    "freeze": {"refresh": "freeze"},
    "freeze, window of the whole rank": {"refresh": "freeze", "window_rank": RANK},
    "recompress": {"refresh": "recompress"},
}


class LastLayerScorer(BatchedScorer):
    """The last layer behind attention, norm and the candidates' logits, on cached inputs [1, hidden] an example."""

    def __init__(self, path: str, run: Run) -> None:
        super().__init__(path, run.layout)
        self._last = self._model.model.layers[-1]
        self._inputs: dict[int, tuple[torch.Tensor, torch.Tensor]] = {}
        seen: dict[str, torch.Tensor] = {}
        hooks = [
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.__setitem__(name, inputs[0]))
            for name, module in (("stream", self._last), ("attended", self._last.self_attn.o_proj))
        ]
        examples = [*run.data.train, *run.data.valid]
        for begin in range(0, len(examples), 16):
            part = examples[begin : begin + 16]
            with torch.inference_mode():
                ids, mask = padded([e.sequences[0] for e in part])
                self._model.model(input_ids=ids, attention_mask=mask, use_cache=False)
            for row, e in enumerate(part):
                at = {int(c.positions[0]) for c in e.candidates if len(c.positions) == 1}
                if len(at) != 1 or len(e.sequences) != 1:
                    raise ValueError("candidates must be one token each, at one place")
                place = at.pop()
                self._inputs[id(e)] = seen["stream"][row, place].clone(), seen["attended"][row, place].clone()
        for hook in hooks:
            hook.remove()

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        """Trials of one number of rows share a batch."""
        losses: dict[int, Loss] = {}
        for rows in sorted({len(t.examples) for t in trials}):
            alike = [i for i, t in enumerate(trials) if len(t.examples) == rows]
            losses.update(zip(alike, self._score([trials[i] for i in alike], rows), strict=True))
        return [losses[i] for i in range(len(trials))]

    def _score(self, trials: Sequence[Trial], rows: int) -> list[Loss]:
        self._probes = torch.from_numpy(np.stack([t.params for t in trials if t.params is not None]))
        inputs = [self._inputs[id(e)] for t in trials for e in t.examples]
        targets = torch.tensor([[int(c.targets[0]) for c in e.candidates] for t in trials for e in t.examples])
        with torch.inference_mode():
            h = torch.stack([stream for stream, _ in inputs])
            h = h + self._last.self_attn.o_proj(torch.stack([attended for _, attended in inputs]))
            h = self._model.model.norm(h + self._last.mlp(self._last.post_attention_layernorm(h)))
            # The normaliser over the vocabulary cancels in a choice between tokens: among themselves is enough.
            scores = torch.einsum("nh,nkh->nk", h, self._model.lm_head.weight[targets]).log_softmax(-1).numpy()
        parts = [scores[i * rows : (i + 1) * rows, :, None] for i in range(len(trials))]
        return [objectives.loss(trial, [list(row) for row in part]) for trial, part in zip(trials, parts, strict=True)]


def dataset(base: Base, train: int = 240, valid: int = 100) -> Dataset:
    """The demo's sentiment rows, the first `train` and the first `valid` of them."""
    parts = []
    for rows, wanted in zip(sentiment(), (train, valid), strict=True):
        lines = "".join(json.dumps(row) + "\n" for row in rows[:wanted]).encode()
        parts.append(tuple(example(encode(base, row)) for row in parse((lines,))))
    return Dataset(*parts)


def spec(base: Base, learning_rate: float, steps: int, seed: int, **way: Any) -> JobSpec:
    layer = max(int(m[0].split(".")[2]) for m in base.modules)
    targets = tuple(f"layers.{layer}.{name}" for name in TARGETS)
    method = {"name": "lozo", "eps": 1e-3, "learning_rate": learning_rate, "nu": NU, "window_rank": WINDOW, **way}
    return JobSpec(
        model=base.name, objective="choice", adapter=AdapterSpec(rank=RANK, alpha=16.0, targets=targets),
        method=methods.settings(**method), training_file="train", validation_file="valid", steps=steps,
        batch_size=BATCH, eval_every=100, eval_rows=100, seed=seed,
    )  # fmt: skip


def measure(base: Base, rates: Sequence[float], steps: int, seeds: Sequence[int]) -> list[dict[str, Any]]:
    """Every way at every learning rate and seed: losses in nats, accuracy, truncation errors."""
    data, found = dataset(base), []
    names = [(way, rate) for way in WAYS for rate in rates]
    scorer: LastLayerScorer | None = None
    for seed in seeds:
        jobs = [spec(base, rate, steps, seed, **WAYS[way]) for way, rate in names]
        runs = [start(f"{way} {rate}", job, base, data) for (way, rate), job in zip(names, jobs, strict=True)]
        scorer = scorer or LastLayerScorer(str(base.source), runs[0])
        history: list[list[float]] = [[] for _ in runs]
        held_out: list[list[cohort.Evaluation]] = [[] for _ in runs]
        begun = time.perf_counter()
        while not all(run.done for run in runs):
            stepped = cohort.step(runs, scorer)
            for i, (_, result) in enumerate(stepped):
                history[i] += [sum(result.losses) / 2] if result.losses else []
                held_out[i] += [result.evaluation] if result.evaluation else []
            runs = [run for run, _ in stepped]
        seconds = time.perf_counter() - begun
        for (way, rate), run, train, curve in zip(names, runs, history, held_out, strict=True):
            assert isinstance(run.state, State)
            found.append({
                "way": way, "learning_rate": rate, "seed": seed, "steps": steps, "cohort_seconds": round(seconds, 1),
                "train_loss_first_100": mean(train[:100]), "train_loss_last_100": mean(train[-100:]),
                "held_out_loss": [round(e.loss, 4) for e in curve], "best": run.best,
                "accuracy": [round(e.accuracy or 0.0, 3) for e in curve],
                "truncation": [round(x, 4) for x in run.state.truncation], "failed": run.failed,
            })  # fmt: skip
            print(json.dumps(found[-1]), flush=True)
    return found


def mean(values: Sequence[float]) -> float:
    return round(float(np.mean(values)), 4)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--rates", type=float, nargs="+", default=[1e-4, 3e-4, 1e-3])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS / "lozo_refresh.json")
    asked = parser.parse_args()
    torch.set_num_threads(min(2, torch.get_num_threads()))
    base = open_base(DEMO_MODEL, str(demo_model(asked.home)))
    runs = measure(base, asked.rates, asked.steps, asked.seeds)
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    settings = {"targets": TARGETS, "rank": RANK, "window_rank": WINDOW, "nu": NU, "batch": BATCH}
    asked.out.write_text(json.dumps({"machine": machine(), "settings": settings, "runs": runs}, indent=1) + "\n")
    print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
