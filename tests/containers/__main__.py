"""`make compose-test`: docker-compose.yml as it is, by the engine that this machine has, and taken down again.

Brings up all but Grafana, trains and talks by the `openai` client, restarts every container during a job, recreates
each as an upgrade does, scrapes, breaks what can be broken, and writes what it measured. One sentence and exit status 1
where something is not as promised, or no engine or image is here.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from openai import OpenAIError

from bench.report.measure import machine
from helm.images.engines import Engine, EngineError, NoEngine, find
from helm.images.targets import ROOT, TARGETS
from tests.containers import faults, smoke, walks
from tests.containers.project import Project
from tests.containers.standins import provide

SERVERS = ("postgres:18", "valkey/valkey:9", "prom/prometheus:v3.5.0", "haproxy:3.2-alpine")
# Nobody's port is published while who publishes it is made anew, longer than the client's retries last: only an upgrade
# of the proxy itself does that.
DISTURBANCES = (
    ("restarts", ("restart", "--timeout", "90"), ()),  # left out, Podman's Docker API takes it for 0
    ("upgrades", ("up", "--no-build", "--no-deps", "--force-recreate", "--detach"), ("proxy",)),
)
RESULTS = ROOT / "bench/results"


def main() -> None:
    """Parses, goes through it all, writes the report."""
    parser = argparse.ArgumentParser(prog="make compose-test", description=__doc__)
    parser.add_argument("--engine", help="docker or podman; else the first that answers")
    parser.add_argument("--base", default="demo", choices=("demo", "tiny"), help="the packaged model, or a random one")
    parser.add_argument("--steps", type=int, default=1500, help="of the job that is disturbed")
    parser.add_argument("--out", type=Path, help="default bench/results/containers-ENGINE.json")
    arguments = parser.parse_args()
    report: dict[str, Any] = {}
    try:
        with tempfile.TemporaryDirectory(prefix="onward-base-") as folder:
            engine = find(ROOT / ".onward/images", arguments.engine)
            arguments.out = arguments.out or RESULTS / f"containers-{'podman' if engine.podman else 'docker'}.json"
            through(engine, arguments, Path(folder), report)
    except (NoEngine, EngineError, smoke.Broken, OpenAIError, subprocess.TimeoutExpired) as error:
        report["broken"] = str(error)
    if "machine" in report:  # it began: what it came to stays, whatever broke it
        arguments.out.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")
        print(json.dumps(report, indent=1))
    if "broken" in report:
        sys.exit(f"compose-test: {report['broken']}")


def through(engine: Engine, arguments: argparse.Namespace, folder: Path, report: dict[str, Any]) -> None:
    """Everything, in order; what is measured goes to `report` as it comes."""
    made = ready(engine)
    name, base = based(arguments.base, folder)
    report |= {"machine": machine(), "engine": engine.version, "stand_ins": made, "base": name}
    report["left_out"] = "grafana: its image has no package to stand in for it"
    with Project(engine, name, base) as project:
        say("up: all but Grafana")
        begun = time.monotonic()
        project.up()
        report["ready_seconds"] = round(time.monotonic() - begun, 1)
        say(f"ready after {report['ready_seconds']} s")
        report["containers"] = walks.locked(project)
        client = walks.client_of(project)
        found = smoke.walk(client)
        report["walk"] = asdict(found)
        say(f"walked: first step after {found.first_step:.2f} s, {found.steps} after {found.whole:.1f}")
        report["verified"] = walks.verified(project, found.adapter)
        report["prometheus"] = walks.watched(project)
        for label, act, counted in DISTURBANCES:
            say(f"{label}: every service, one at a time, during a job of {arguments.steps} steps")
            report[label] = walks.disturbed(project, client, name, arguments.steps, act, counted)
            say(f"{label}: {report[label]['seconds']}")
        say("down, and up again")
        report["again_seconds"] = walks.kept(project, client, found)
        report["faults"] = {}
        for label, said in faults.each(project):
            say(f"fault, {label}: {said}")
            report["faults"][label] = said


def ready(engine: Engine) -> dict[str, str]:
    """The images are here. Raises EngineError where ours are not."""
    for target in TARGETS[:2]:
        if not engine.has(target.image):
            raise EngineError(f"{target.image} is not here: `make images` builds it.")
    return provide(engine, SERVERS, say)


def based(which: str, folder: Path) -> tuple[str, Path]:
    """The public name of the base model, and a folder that others may read."""
    if which == "tiny":
        from tests.bases import tiny

        place, name = Path(tiny("llama", folder)), "tiny"
    else:
        from cli.local.demo_model import DEMO_MODEL, demo_model

        place, name = Path(demo_model(ROOT / ".onward")), DEMO_MODEL
    folder.chmod(0o755)
    subprocess.run(["chmod", "-R", "a+rX", str(place)], check=True)
    return name, place


def say(line: str) -> None:
    print(f"compose-test: {line}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
