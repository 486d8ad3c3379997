"""`python -m tests.containers.pods [--out FILE]`: the whole course; exit status 1 and one sentence where it breaks."""

import argparse
import json
import platform
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import openai

from bench.report.measure import machine
from helm.images.engines import Engine, EngineError, NoEngine, find
from tests.containers.pods.course import Course
from tests.containers.pods.filling import fills
from tests.containers.pods.node import Node
from tests.containers.pods.site import Site, kinds, run
from tests.containers.smoke import Broken
from tests.containers.standins import whole
from tests.helm.charts import rendered
from tests.tools import tool

VALUES = "trial"


def images() -> list[str]:
    """Of every pod of the trial, by their whole names."""
    made = kinds(rendered(VALUES)).values()
    return sorted({whole(one["image"]) for kind in made for one in kind.template["spec"]["containers"]})


def missing(engine: Engine) -> str:
    """Why the course cannot run on this engine; nothing where it can."""
    if not engine.podman:
        return f"{engine.version} has no `kube play`: Podman is needed"
    absent = [image for image in images() if not engine.has(image)]
    return f"These images are not here: {', '.join(absent)}." if absent else ""


def course(engine: Engine, say: Callable[[str], None], quick: bool = False) -> dict[str, Any]:
    """The report, of what was reached too where `broken` says what broke. What was made is removed."""
    begun, broken = time.monotonic(), ""
    with Node(engine, rendered(VALUES)) as node:
        site = Site(node, kinds(node.objects), say)
        try:
            fills(site)
            Course(site).run(quick)
        except (Broken, EngineError, openai.OpenAIError) as error:
            broken = str(error)
            say(f"broken: {broken}")
            for pod in node.pods.values():
                say(f"--- {pod.name}\n" + "\n".join(pod.logs().splitlines()[-8:]))
        watches = [{"pod": pod.name, "history": pod.watch.history} for pod in node.pods.values() if pod.watch]
        site.watches += watches
    return {
        "command": "python -m tests.containers.pods",
        "machine": machine(),
        "engine": {
            "podman": engine.version,
            "runc": run("runc", "--version").split("\n")[0],
            "kernel": platform.release(),
        },
        "chart": {"values": VALUES, "helm": run(str(tool("helm")), "version", "--short")},
        "seconds": round(time.monotonic() - begun, 1),
        "broken": broken,
        "left out": ["frozen pods"] if quick else [],
        "left behind": node.left(),
        "translated": {component: sorted(said) for component, said in sorted(node.translations.items())},
        "looked": site.looks,
        "course": site.steps,
        "probes": site.watches,
        "stops": site.stops,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, help="where the report goes")
    parser.add_argument("--quick", action="store_true", help="without frozen pods, whose probes take minutes to fail")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what was made is removed then too
    begun = time.monotonic()
    with TemporaryDirectory(prefix="onward-engine-") as folder:
        try:
            engine = find(Path(folder), "podman")
            if why := missing(engine):
                sys.exit(why)
            report = course(
                engine, lambda line: print(f"{time.monotonic() - begun:6.1f} {line}", flush=True), asked.quick
            )
        except (NoEngine, EngineError) as error:
            sys.exit(str(error))
    for component, lines in report["translated"].items():
        print(f"\n{component}, translated for Podman:", *lines, sep="\n  ")
    if asked.out:
        asked.out.write_text(json.dumps(report, indent=1, ensure_ascii=False) + "\n")
    if report["broken"] or report["left behind"]:
        sys.exit(f"pods: {report['broken'] or report['left behind']}")


if __name__ == "__main__":
    main()
