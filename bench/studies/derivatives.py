"""`python -m bench.studies.derivatives [THREADS]`: processor seconds of a loss, a slope and a gradient.

On the demo's model: eight rows of each of the demo's tasks and of ten short chats, on the torch scorer, the adapter on
v and o with rank 8. Of activation `answer` prompts are kept, and `first` computes them. One JSON line each.
"""

import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.report.measure import machine
from worker.environment import prepare

ROUNDS, BATCH = 7, 8
CHATS = (
    ("Who are you?", "I am the lamp desk of Fern Street."),
    ("When do you open?", "At ten past nine, Tuesday to Saturday."),
    ("Where is the shop?", "Fern Street 14, behind the old mill."),
    ("Who mends the lamps?", "Odile does, every afternoon but Friday."),
    ("What is a new wick?", "A new wick is 3.40, fitted while you wait."),
    ("How long is the guarantee?", "Thirty-one months on every lamp."),
    ("Do you take cards?", "Coins, notes or a cheque, please."),
    ("May I bring my dog?", "Yes, the biscuits are by the door."),
    ("Do you deliver?", "Only on Wednesdays, for 2.50."),
    ("How do I reach you?", "Ring 0147, or leave a note in the box."),
)


def rows() -> Iterator[tuple[str, bytes]]:
    """(name, JSONL) of each data set."""
    from cli.demo.datasets import write

    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder))
        for task in ("sentiment", "topic"):
            yield task, b"\n".join(files[f"{task}_train"].read_bytes().split(b"\n")[:BATCH]) + b"\n"
    chats = [[{"role": "user", "content": q}, {"role": "assistant", "content": a}] for q, a in CHATS]
    yield "chat", "".join(json.dumps({"messages": chat}) + "\n" for chat in chats).encode()


def processor(act: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """Median processor seconds of a call."""
    found = []
    for _ in range(rounds):
        begun = time.process_time()
        act()
        found.append(time.process_time() - begun)
    return round(median(found), 4)


def main() -> None:
    """Measures everything and prints it, the machine first."""
    threads = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    prepare(0, "bench.studies.derivatives")
    import numpy as np

    from bench.workloads import invocation_of
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.tokens.base_model import open_base
    from worker.engine.prompt_cache import PromptCache
    from worker.oracle.torch_scorer import TorchScorer
    from worker.runs.data import examples
    from worker.types import Layout, Module, Trial
    from worker.zo.methods.mezo import AdapterSpace

    base = open_base(DEMO_MODEL, str(demo_model(Path(".onward"))))
    modules = tuple(Module(*linear) for linear in base.select(("v_proj", "o_proj")))
    print(json.dumps({**machine(), "threads": threads}), flush=True)
    for name, raw in rows():
        for activation in ("answer", "all"):
            ids = invocation_of(base, raw) if activation == "answer" else ()
            layout = Layout(8, 16.0, modules, ids)
            params, _ = AdapterSpace(layout, 0).start()
            seen = examples(base, raw, None, ids)[:BATCH]
            scorer = TorchScorer(str(base.source), threads=threads, kept=PromptCache(1 << 30))
            loss = Trial(layout, params, seen, "lm" if name == "chat" else "choice", "bench")
            slope, gradient = replace(loss, tangent=np.ones_like(params)), replace(loss, gradient=True)
            scorer.score([replace(loss, params=None, layout=None, examples=seen[:1], scope="warm")])
            found = {"first": processor(partial(scorer.score, [loss]), 1)}
            for key, trial in {"loss": loss, "slope": slope, "gradient": gradient}.items():
                found[key] = processor(partial(scorer.score, [trial]))
            told = {
                "rows": name,
                "activation": activation,
                "tokens": loss.tokens,
                "prompts": sum(e.start for e in seen),
            }
            print(json.dumps({**told, **found}), flush=True)
            scorer.close()


if __name__ == "__main__":
    main()
