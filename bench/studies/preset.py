"""`python -m bench.studies.preset TASK KEY=VALUE... [-- TASK ...]`: candidate settings on the demo's tasks.

Each candidate is a run of one cohort on one resident engine; held-out loss and accuracy are printed as they come.
"""

import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.report.measure import machine
from worker.environment import prepare

ROWS = 200


def candidates(words: list[str]) -> list[tuple[str, dict[str, Any]]]:
    """[(task, fields as `presets.resolve` takes them)] from the command line; values are JSON or plain text."""
    groups: list[list[str]] = [[]]
    for word in words:
        if word == "--":
            groups.append([])
        else:
            groups[-1].append(word)
    return [(group[0], dict(_field(word) for word in group[1:])) for group in groups if group]


def _field(word: str) -> tuple[str, Any]:
    key, _, value = word.partition("=")
    try:
        return key, json.loads(value)
    except ValueError:
        return key, value


def main() -> None:
    """Trains every candidate to its end and prints one JSON line each, the machine first."""
    prepare(0, "bench.studies.preset")
    from cli.demo.datasets import write
    from cli.local.demo_model import DEMO_MODEL, demo_model
    from db.contract.presets import resolve
    from db.contract.spec import JobSpec
    from db.contract.tokens.base_model import open_base
    from worker.runs import cohort
    from worker.runs.data import Dataset, examples
    from worker.runs.run import start
    from worker.scoring.engine_scorer import EngineScorer

    base = open_base(DEMO_MODEL, str(demo_model(Path(".onward"))))
    runs, asked = [], {}
    with tempfile.TemporaryDirectory() as folder:
        files = write(Path(folder))
        for number, (task, fields) in enumerate(candidates(sys.argv[1:])):
            parts = (files[f"{task}_{part}"].read_bytes() for part in ("train", "valid"))
            data = Dataset(*(examples(base, part) for part in parts))
            whole = resolve({"seed": 0, **fields}, base, "choice", len(data.train), min(ROWS, len(data.valid)))
            spec = JobSpec(model=base.name, training_file=task, validation_file=task, **whole)
            runs.append(start(str(number), spec, base, data))
            asked[str(number)] = {"task": task, **fields}
    print(json.dumps(machine()), flush=True)
    curves: dict[str, list[tuple[int, float, float]]] = {name: [] for name in asked}
    scorer, begun = EngineScorer(str(base.source)), time.monotonic()
    while runs:
        stepped = cohort.step(runs, scorer)
        for run, result in stepped:
            if (e := result.evaluation) is not None:
                curves[run.job_id].append((e.step, round(e.loss, 4), round(e.accuracy or 0.0, 4)))
                print(f"{time.monotonic() - begun:6.0f} s  {asked[run.job_id]}  {curves[run.job_id][-1]}", flush=True)
            if run.done:
                print(json.dumps({**asked[run.job_id], "failed": run.failed, "curve": curves[run.job_id]}), flush=True)
        runs = [run for run, _ in stepped if not run.done]
    scorer.close()


if __name__ == "__main__":
    main()
