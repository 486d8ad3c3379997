"""`python -m bench.studies.company`: what company does to a loss, by precision.

One tenant's trials are scored alone, and then among 1, 7 and 31 others of other ranks, modules, lengths and
activations, some before and some after: the largest change of a mean loss, nats a token, over a few such crowds. The
same trials alone a second time say what is repeatable at all. What is found is the noise floor of this engine on this
machine: below it, a loss says nothing about its company.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from bench.report.measure import RESULTS, machine

COMPANY, CROWDS, DTYPES = (1, 7, 31), 4, ("float32", "bfloat16")
INVOCATION = (1, 2)
Rng = np.random.Generator


def text(rng: Rng, vocab: int, length: int, scored: int) -> Any:
    """A random text whose last `scored` tokens are predicted."""
    from worker.types import Candidate, Example

    ids = rng.integers(3, vocab, length + 1, dtype=np.int32)
    rows = np.arange(length - scored, length, dtype=np.int32)
    return Example((ids[:-1],), (Candidate(0, rows, ids[rows + 1]),))


def answer(rng: Rng, vocab: int, prompt: int) -> Any:
    """A random prompt, the invocation, and two tokens to predict after it."""
    from worker.types import Candidate, Example

    ids = rng.integers(3, vocab, prompt + 4, dtype=np.int32)
    ids[prompt : prompt + 2] = INVOCATION
    rows = np.arange(prompt + 1, prompt + 3, dtype=np.int32)
    return Example((ids[:-1],), (Candidate(0, rows, ids[rows + 1]),), start=prompt)


def trial(rng: Rng, base: Any, number: int, longest: int) -> Any:
    """The `number`-th kind of trial: ranks 1 to 32, attention or every module, activated or not, bare in between."""
    from worker.types import Layout, Module, Trial

    modules = tuple(Module(*m) for m in base.modules)
    attention = tuple(m for m in modules if ".self_attn." in m.name)
    rank, activated = (1, 32, 8, 2)[number % 4], number % 3 == 2
    layout = Layout(rank, 2.0 * rank, attention if number % 2 else modules, INVOCATION if activated else ())
    lengths = [int(rng.integers(8, longest)) for _ in range(3)]
    rows = [answer(rng, base.vocab, n) if activated else text(rng, base.vocab, n, 4) for n in lengths]
    if number % 5 == 4 and not activated:
        return Trial(None, None, tuple(rows), "lm", f"tenant-{number}")
    tensors = [rng.standard_normal(outer * inner) * 0.3 / inner for outer, inner in layout.shapes]
    params = np.concatenate(tensors).astype(np.float32)
    return Trial(layout, params, tuple(rows), "lm", f"tenant-{number}")


def change(scorer: Any, alone: list[float], mine: list[Any], others: list[Any]) -> float:
    """The largest change of a mean loss of `mine` among `others`, nats a token."""
    half = len(others) // 2
    among = scorer.score([*others[:half], *mine, *others[half:]])[half : half + len(mine)]
    return max(abs(float(loss.mean) - before) for loss, before in zip(among, alone, strict=True))


def measure(base: Any, dtype: str) -> dict[str, Any]:
    """One engine: by number of neighbours, the largest change of a loss."""
    from worker.scoring.engine_scorer import EngineScorer

    scorer = EngineScorer(str(base.source), dtype=dtype)
    found = dict.fromkeys(("alone again", *(f"{n} neighbours" for n in COMPANY)), 0.0)
    for crowd in range(CROWDS):
        rng = np.random.default_rng(crowd)
        mine = [trial(rng, base, n, 120) for n in (0, 1, 2)]
        alone = [loss.mean for loss in scorer.score(mine)]
        found["alone again"] = max(found["alone again"], change(scorer, alone, mine, []))
        for count in COMPANY:
            others = [trial(rng, base, 3 + n, 400 if n % 8 == 0 else 120) for n in range(count)]
            name = f"{count} neighbours"
            found[name] = max(found[name], change(scorer, alone, mine, others))
    about = {"engine": "vllm", "dtype": dtype, "model": base.name, "device": scorer.engine.device.type}
    versions = scorer.engine.versions()
    scorer.close()
    return about | {"largest change of a mean loss, nats a token": found} | versions


def main() -> None:
    """Prints a line a precision, writes company.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--dtypes", nargs="+", default=list(DTYPES))
    arguments = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.studies.company")
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.tokens.base_model import open_base

    base = open_base(DEMO_MODEL, str(demo_model(arguments.home)))
    found = [measure(base, dtype) for dtype in arguments.dtypes]
    for one in found:
        changes = one["largest change of a mean loss, nats a token"].items()
        print(f"{one['dtype']:<10}", "  ".join(f"{name} {nats:.3g}" for name, nats in changes))
    arguments.out.mkdir(parents=True, exist_ok=True)
    (arguments.out / "company.json").write_text(json.dumps({"engines": found, "machine": machine()}, indent=2) + "\n")


if __name__ == "__main__":
    main()
