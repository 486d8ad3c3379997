"""`python -m bench`: every figure of the main job in one run, as a table and as JSON in bench/results/.

Sections say their figures as they are measured and write them at once, so that a run that is stopped keeps what it has.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.report import table
from bench.report.measure import RESULTS, machine

SECTIONS = ("replay", "compare", "quality", "memory", "first step", "service", "api", "serving")
QUICK_SECTIONS = ("compare", "service")
QUICK = ("sentences", "32 jobs", "sentences, answer")  # workloads
MEMORY = ("sentences", "reviews", "reviews, answer")


@dataclass
class Bench:
    """What is asked, and the figures so far."""

    home: Path
    out: Path
    quick: bool
    only: tuple[str, ...]
    workloads: tuple[str, ...]
    figures: dict[str, Any] = field(default_factory=dict)
    begun: float = field(default_factory=time.monotonic)

    @property
    def elapsed(self) -> str:
        return f"{time.monotonic() - self.begun:.0f} s so far"

    def keep(self, section: str, found: dict[str, Any]) -> None:
        """Enter a section's figures, the machine and the time beside them, print and write them."""
        self.figures[section] = {**found, "machine": machine()} if section != "compare" else found
        self.out.parent.mkdir(parents=True, exist_ok=True)
        self.out.write_text(json.dumps(self.figures, indent=1) + "\n")
        if section not in ("compare", "quality", "memory"):
            print(f"\n{section}, {self.elapsed}", *table.lines(found, "  "), sep="\n", flush=True)


def main() -> None:
    """Prints the tables and writes the JSON. `--quick` takes some workloads, two rounds each, and 1,000 queued jobs."""
    from bench.workloads import WORKLOADS

    names = tuple(w.name for w in WORKLOADS)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=SECTIONS, help="keep the file's other sections")
    parser.add_argument("--workloads", nargs="+", choices=names, help="of compare and memory; keep the file's others")
    parser.add_argument("--out", type=Path, default=RESULTS / "bench.json")
    asked = parser.parse_args()
    # The engine wants its environment before anything of it is imported: the same as the worker's. And Intel's OpenMP
    # binds whatever a process forks to one core, the service's worker among it, unless it is told not to bind at all.
    os.environ.setdefault("OMP_PROC_BIND", "false")
    from worker.environment import prepare

    prepare(0, "bench")
    bench = Bench(
        asked.home,
        asked.out,
        asked.quick,
        tuple(asked.only or (QUICK_SECTIONS if asked.quick else SECTIONS)),
        tuple(asked.workloads or (QUICK if asked.quick else names)),
    )
    if (asked.only or asked.workloads) and asked.out.exists():
        bench.figures = json.loads(asked.out.read_text())
    sections: dict[str, Callable[[Bench], None]] = {
        "replay": replay,
        "compare": compared,
        "quality": quality,
        "memory": memory,
        "first step": served,
        "serving": chats,
    }
    for name, measure in sections.items():
        if name in bench.only or (measure is served and {"service", "api"} & set(bench.only)):
            measure(bench)
    print(*table.rows(bench.figures), sep="\n")
    print(f"\n{bench.elapsed}; written to {bench.out}")


def replay(bench: Bench) -> None:
    from bench.sections.replay import replay_seconds

    bench.keep("replay", replay_seconds(_demo(bench)))


def compared(bench: Bench) -> None:
    """Contenders in turn, each workload entered as it is done."""
    from bench.sections.compare import compare, environment
    from bench.workloads import WORKLOADS

    def say(name: str, found: dict[str, Any]) -> None:
        kept = bench.figures.get("compare", {})
        bench.keep("compare", {**kept, name: {**found, "environment": environment(), "machine": machine()}})
        print(*table.block(name, found, {}, {}), sep="\n")
        print(f"  ({bench.elapsed})", flush=True)

    compare(bench.home, [w for w in WORKLOADS if w.name in bench.workloads], bench.quick, say)


def quality(bench: Bench) -> None:
    """What the presets learn, against the seconds that each contender took for their steps."""
    from bench.sections.quality import section

    bench.keep("quality", section(bench.home, bench.figures.get("compare", {}), lambda line: print(line, flush=True)))


def memory(bench: Bench) -> None:
    """A process a contender."""
    from bench.sections.memory import measure
    from bench.workloads import WORKLOADS

    kept = bench.figures.get("memory", {})
    chosen = [w for w in WORKLOADS if w.name in bench.workloads and w.name in MEMORY]
    bench.keep("memory", {**kept, **measure(bench.home, chosen)})


def served(bench: Bench) -> None:
    """First step, service against bare engine, and the API under load: of one service."""
    from bench.sections import replay, service
    from worker.runs import cohort
    from worker.runs.run import start
    from worker.scoring.engine_scorer import EngineScorer

    base = _demo(bench)
    rounds, queued = (2, 1_000) if bench.quick else (4, 10_000)
    with service.service(base) as (stack, client):
        if "first step" in bench.only:
            bench.keep("first step", service.post_to_first_step(stack, client, base.name, 4 * rounds))
        if "service" in bench.only:
            scorer = EngineScorer(str(base.source))
            runs = [start("bare", replay.spec(base), base, replay.dataset(base))]

            def bare(steps: int) -> None:
                """The same steps as the service's job: from its start, on the same rows."""
                runs[:] = [start("bare", replay.spec(base), base, runs[0].data)]
                for _ in range(steps):
                    runs[:] = [run for run, _ in cohort.step(runs, scorer)]

            bare(1)
            bench.keep("service", service.step_over_bare(stack, client, base.name, bare, rounds, 12))
            scorer.close()
        if "api" in bench.only:
            bench.keep("api", service.api_under_load(stack, client, base, queued))


def chats(bench: Bench) -> None:
    """Chats beside training, of a service of its own."""
    from bench.sections.serving import section

    rounds, requests = (2, 12) if bench.quick else (5, 40)
    bench.keep("serving", section(_demo(bench), rounds, requests, lambda line: print(line, flush=True)))


def _demo(bench: Bench) -> Any:
    from bench.workloads import base_of
    from cli.local.demo_model import DEMO_MODEL

    return base_of(DEMO_MODEL, bench.home)


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main()
