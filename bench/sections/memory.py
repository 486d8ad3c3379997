"""What a contender adds to a process's memory, each in a process of its own: weights, working memory, caches.

`python -m bench.sections.memory WORKLOAD CONTENDER` prints the bytes: the peak of the resident set over two steps less
what was resident once the same libraries were imported. What libraries themselves take is left out, in both.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.workloads import ENGINE, WORKLOADS, Workload


def measure(home: Path, chosen: Sequence[Workload]) -> dict[str, Any]:
    """{workload: {contender: added bytes and their ratio to Onward's}}."""
    found: dict[str, Any] = {}
    for w in chosen:
        added = {name: _child(home, w.name, name) for name in w.who}
        found[w.name] = {
            name: {"added bytes": size, "times onward's": size / added[ENGINE]} for name, size in added.items()
        }
    return found


def _child(home: Path, workload: str, name: str) -> int:
    command = [sys.executable, "-m", "bench.sections.memory", workload, name, "--home", str(home)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{workload}, {name}: exit {done.returncode}\n{done.stderr[-2000:]}")
    return int(json.loads(done.stdout.splitlines()[-1])["added"])


def added(home: Path, w: Workload, name: str) -> int:
    """Bytes that contender `name` adds to this process in a first and a second step of `w`."""
    from bench.contenders.line_up import Jobs, contender
    from bench.sections.compare import Resident
    from bench.workloads import base_of

    if name == ENGINE:
        import worker.scoring.engine_scorer  # noqa: F401  # its libraries are not counted
    jobs = Jobs(w, base_of(w.model, home))
    resident = Resident(base_of(w.model, home))
    gc.collect()
    before = _status("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
    it = contender(name, jobs, str(resident.base.source), lambda: resident.loaded, lambda: resident.scorer)
    for number in range(2):
        it.step(number)
    return _status("VmHWM") - before


def _status(key: str) -> int:
    """Bytes that the kernel counts for this process."""
    (line,) = [x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith(key + ":")]
    return int(line.split()[1]) * 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("workload")
    parser.add_argument("contender")
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    asked = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.sections.memory")
    (w,) = [w for w in WORKLOADS if w.name == asked.workload]
    print(json.dumps({"added": added(asked.home, w, asked.contender)}), flush=True)
    os._exit(0)  # an engine takes seconds to end in order, and nothing here is to be kept


if __name__ == "__main__":
    main()
