"""`python -m bench`: every figure of the main job in one run, as a table and as JSON in bench/results/."""

import argparse
import json
import os
from pathlib import Path
from typing import Any

from bench.measure import machine

RESULTS = Path(__file__).parent / "results"
SECTIONS = ("replay", "engine", "first step", "service", "api")


def main() -> None:
    """Prints the table and writes the JSON. `--quick` takes fewer rounds and 1,000 queued jobs instead of 10,000."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, default=SECTIONS, help="keep the file's other sections")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench.json")
    arguments = parser.parse_args()
    # The engine wants its environment before anything of it is imported: the same as the worker's.
    from worker.environment import prepare

    prepare(0, "bench")
    rounds, queued = (3, 1_000) if arguments.quick else (8, 10_000)
    found = run(arguments.home, rounds, queued, set(arguments.only))
    kept = json.loads(arguments.out.read_text()) if arguments.only != SECTIONS and arguments.out.exists() else {}
    figures = {**kept, **found}
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(json.dumps(figures, indent=2) + "\n")
    print(f"written to {arguments.out}")


def run(home: Path, rounds: int, queued: int, only: set[str]) -> dict[str, Any]:
    """The figures of the sections in `only`, each printed as it is measured, the machine and the time beside it."""
    from bench import engine, service
    from cli.assets import DEMO_MODEL, demo_model
    from db.bases import open_base
    from worker import trainer
    from worker.scoring.vllm_scorer import VllmScorer

    base = open_base(DEMO_MODEL, str(demo_model(home)))
    figures: dict[str, Any] = {}
    if "replay" in only:
        say("replay", figures, engine.replay_seconds(base))
    scorer = VllmScorer(str(base.source)) if only & {"engine", "service"} else None
    if scorer is not None and "engine" in only:
        say("engine", figures, engine.measure(base, scorer, rounds))
    bare = [trainer.start("bare", engine.spec(base), base, engine.dataset(base))]

    def bare_step() -> None:
        assert scorer is not None
        bare[:] = trainer.step(bare, scorer)

    if only & {"first step", "service", "api"}:
        with service.service(base) as (stack, client):
            if "first step" in only:
                say("first step", figures, service.post_to_first_step(stack, client, base.name, 2 * rounds))
            if "service" in only:
                found = service.step_over_bare(stack, client, base.name, bare_step, max(2, rounds // 3), 12)
                say("service", figures, found)
            if "api" in only:
                say("api", figures, service.api_under_load(stack, client, base, queued))
    if scorer is not None:
        scorer.close()
    return figures


def say(name: str, figures: dict[str, Any], found: dict[str, Any]) -> None:
    figures[name] = {**found, "machine": machine()}
    print(f"\n{name}")
    for line in rows(found):
        print("  " + line)


def rows(found: dict[str, Any], indent: str = "") -> list[str]:
    """One line a figure; a spread as its median and quartiles."""
    out = []
    for key, value in found.items():
        if isinstance(value, dict) and "median" in value:
            extra = f"  p95 {value['p95']:.4g}" if "p95" in value else ""
            out.append(f"{indent}{key:<36} {value['median']:.4g}  [{value['q1']:.4g} .. {value['q3']:.4g}]{extra}")
        elif isinstance(value, dict):
            out += [f"{indent}{key}", *rows(value, indent + "  ")]
        else:
            out.append(f"{indent}{key:<36} {value:.4g}" if isinstance(value, float) else f"{indent}{key:<36} {value}")
    return out


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
