"""Scoring on quantised weights: speed of a wave, memory and noise of L+ - L-, beside the plain model.

`python -m bench.studies.quantised` quantises the demo's SmolLM2-135M in the formats that a CPU runs and keeps one in a
process of its own; they score the same wave in turn. The noise is that of a MeZO step's difference of two losses at eps
1e-2 at the start of the demo's sentiment task, against transformers in float32 on the dequantised weights.
"""

import argparse
import json
import multiprocessing
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

import numpy as np

from bench.report.measure import RESULTS, interleaved, machine, spread
from bench.sections import replay
from cli.local.demo_model import DEMO_MODEL, demo_model
from db.contract.tokens.base_model import Base, open_base
from tests.quantised import Scheme, quantised
from worker.runs.run import start
from worker.types import Candidate, Example, Loss, Params, Trial

SLOTS, ROWS, LENGTH = 4, 8, 30  # 960 tokens a wave
PAIRS, BATCH = 12, 8
CONTENDERS: Final[dict[str, tuple[Scheme | None, str]]] = {
    "float32": (None, "float32"),
    "bfloat16": (None, "bfloat16"),
    "w4a16 in float32 (ours)": ("w4a16-asym", "float32"),
    "w8a16 in float32 (ours)": ("w8a16", "float32"),
    "w4a16 in float16 (vLLM)": ("w4a16-asym", "float16"),
    "w4a16 in bfloat16 (vLLM)": ("w4a16-asym", "bfloat16"),
    "w8a8 in float32": ("w8a8", "float32"),
    "fp8 in float32": ("fp8", "float32"),
}


@dataclass
class Remote:
    """One engine in a process of its own. `resident` is what its memory grew by, bytes."""

    pipe: Connection
    process: Any
    resident: int

    def score(self, trials: Sequence[Trial]) -> list[Loss]:
        self.pipe.send(trials)
        answer: list[Loss] = self.pipe.recv()
        return answer


def serve(pipe: Connection, path: str, dtype: str) -> None:
    """The child: start an engine, say what it takes, score whatever comes until None."""
    from worker.scoring.engine_scorer import EngineScorer

    before = _resident()
    scorer = EngineScorer(path, slots=SLOTS, max_rank=8, max_tokens=SLOTS * ROWS * LENGTH, dtype=dtype)
    pipe.send(_resident() - before)
    while (trials := pipe.recv()) is not None:
        pipe.send(scorer.score(trials))
    scorer.close()


def remote(path: Path, dtype: str) -> Remote:
    context = multiprocessing.get_context("spawn")
    mine, theirs = context.Pipe()
    process = context.Process(target=serve, args=(theirs, str(path), dtype))
    process.start()
    return Remote(mine, process, mine.recv())


def wave(base: Base) -> list[Trial]:
    """Four tenants' probes of rank 8 on q and v, eight texts of 30 tokens each."""
    rng = np.random.default_rng(1)
    run = start("bench", replay.spec(base), base, replay.dataset(base))
    return [
        Trial(run.layout, _moved(rng, run.params), tuple(_text(rng, base.vocab) for _ in range(ROWS)), "lm")
        for _ in range(SLOTS)
    ]


def probes(base: Base) -> list[Trial]:
    """PAIRS of probes at +eps and -eps along normal directions, on as many minibatches of the sentiment task."""
    rng = np.random.default_rng(2)
    run = start("bench", replay.spec(base, batch=BATCH), base, replay.dataset(base))
    out = []
    for i in range(PAIRS):
        examples = tuple(run.data.train[i * BATCH : (i + 1) * BATCH])
        z = rng.standard_normal(run.layout.size).astype(np.float32)
        out += [Trial(run.layout, run.params + np.float32(s * replay.EPS) * z, examples, "choice") for s in (1, -1)]
    return out


def differences(losses: Sequence[Loss]) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.array([p.mean - m.mean for p, m in zip(losses[::2], losses[1::2], strict=True)])


def noise(mine: Sequence[Loss], theirs: Sequence[Loss]) -> dict[str, float]:
    """The error of L+ - L- as a part of its typical size, and the correlation."""
    a, b = differences(mine), differences(theirs)
    error = float(np.sqrt(np.mean((a - b) ** 2) / np.mean(b**2)))
    return {"relative_error": error, "correlation": float(np.corrcoef(a, b)[0, 1]), "signal": float(b.std())}


def measure(base: Base, folder: Path, rounds: int) -> dict[str, Any]:
    from worker.oracle.torch_scorer import TorchScorer

    plain = Path(base.source)
    trials, pairs = wave(base), probes(base)
    oracles: dict[Scheme | None, list[Loss]] = {}
    for scheme in dict.fromkeys(scheme for scheme, _ in CONTENDERS.values()):
        oracle = TorchScorer(plain if scheme is None else quantised(plain, scheme, folder)[1])
        oracles[scheme] = oracle.score(pairs)
        oracle.close()
        print(f"oracle of {scheme or 'the plain model'}: done", flush=True)
    remotes: dict[str, Remote] = {}
    for name, (scheme, dtype) in CONTENDERS.items():
        remotes[name] = remote(plain if scheme is None else quantised(plain, scheme, folder)[0], dtype)
    seconds = interleaved({n: (lambda _, r=r: r.score(trials)) for n, r in remotes.items()}, rounds)  # type: ignore[misc]
    tokens = sum(t.tokens for t in trials)
    found: dict[str, Any] = {"tokens_a_wave": tokens, "eps": replay.EPS, "pairs": PAIRS}
    for name, (scheme, _) in CONTENDERS.items():
        ratio = [a / b for a, b in zip(seconds["float32"], seconds[name], strict=True)]
        found[name] = {
            "tokens_per_second": spread([tokens / s for s in seconds[name]]),
            "speed_of_float32": spread(ratio),
            "resident_mib": round(remotes[name].resident / 2**20),
            "noise": noise(remotes[name].score(pairs), oracles[scheme]),
        }
    for one in remotes.values():
        one.pipe.send(None)
        one.process.join()
    return found


def _moved(rng: np.random.Generator, params: Params) -> Params:
    moved: Params = params + np.float32(1e-2) * rng.standard_normal(params.size).astype(np.float32)
    return moved


def _text(rng: np.random.Generator, vocab: int) -> Example:
    ids = rng.integers(0, vocab, LENGTH + 1, dtype=np.int32)
    last = np.arange(LENGTH - 2, LENGTH, dtype=np.int32)
    return Example((ids[:-1],), (Candidate(0, last, ids[last + 1]),))


def _resident() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def main() -> None:
    """Prints a table and writes the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, default=RESULTS / "quantised.json")
    arguments = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.studies.quantised")
    base = open_base(DEMO_MODEL, str(demo_model(arguments.home)))
    begun = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = measure(base, Path(folder), arguments.rounds)
    figures = {**found, "seconds": round(time.perf_counter() - begun), "machine": machine()}
    arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"{'':28} {'tokens/s':>9} {'x float32':>9} {'MiB':>6} {'error of L+-L-':>15} {'correlation':>12}")
    for name in CONTENDERS:
        row, far = found[name], found[name]["noise"]
        print(
            f"{name:28} {row['tokens_per_second']['median']:9.0f} {row['speed_of_float32']['median']:9.2f} "
            f"{row['resident_mib']:6} {far['relative_error']:15.2e} {far['correlation']:12.5f}"
        )
    print(f"written to {arguments.out}")


if __name__ == "__main__":
    main()
