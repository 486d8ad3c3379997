"""`python -m tests.worker.engine.graphed FOLDER ARCHITECTURE`: an engine that serves by vLLM's own kernels, with graphs
where there are any, as JSON: what it serves and scores beside what transformers and PEFT give and what it scores
alone. Started by test_graphs.py: a process has one engine at a time."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
from vllm.config import CUDAGraphMode

from tests.bases import tiny
from tests.worker.scoring.cases import ANSWERABLE, INVOCATION, activated, crowd, layout, linears, probe
from tests.worker.serving.generated import Asked, Peft, invoked, prompt, served
from worker.engine import pieces
from worker.scoring.engine_scorer import EngineScorer
from worker.types import Wearable


def main(folder: Path, arch: str) -> None:
    torch.set_num_threads(1)
    pieces.FLOOR = 0  # type: ignore[misc]  # cut as a large model's products are
    path, rng = tiny(arch, folder), np.random.default_rng(1)
    # One place more than is worn: vLLM's kernels for CPUs give tokens without an adapter that of the last place.
    scorer = EngineScorer(path, slots=3, max_rank=8, max_tokens=160, serve_slots=4, serve_tokens=160, graphs=True)
    engine, modules = scorer.engine, linears(path)
    shapes = [
        layout(modules, 8, 16.0, "q_proj", "v_proj"),
        layout(modules, 2, 3.0),
        activated(layout(modules, 8, 16.0, *ANSWERABLE.get(arch, ()))),
    ]
    worn = [None, *(Wearable(f"{n}@0", shape, probe(rng, shape)) for n, shape in enumerate(shapes))]
    asked = [Asked(ids, one) for ids in (prompt(rng, 17), invoked(rng, 6, INVOCATION, 5)) for one in worn]
    trials, scored = crowd(np.random.default_rng(3), modules), []

    def score() -> None:
        if len(scored) < 4:
            scored.append([x.total for x in scorer.score(trials)])

    before, said = [x.total for x in scorer.score(trials)], served(engine, asked, score)
    oracle = Peft(path)
    config = engine.owner.run(lambda: engine.served.vllm_config.compilation_config)
    told = {
        "device": engine.device.type,
        "graphs": config.cudagraph_mode != CUDAGraphMode.NONE,
        "compiled": int(config.mode),
        "said": said,
        "theirs": [oracle.generated(one) for one in asked],
        "before": before,
        "between": scored,
    }
    scorer.close()
    print("\n" + json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
