"""The release on its node: which pods its controllers would make, and what a report says of them."""

import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.bases import tiny
from tests.containers.pods.laid import lay_model
from tests.containers.pods.looks import looked
from tests.containers.pods.node import Node, Object
from tests.containers.pods.pod import Pod
from tests.containers.smoke import Broken
from tests.helm.charts import RELEASE

COMPONENT = "app.kubernetes.io/component"
PATIENCE = 420.0  # seconds for a pod to become ready, beside whatever else this machine does
BUSY = 30.0  # seconds that the engine's own commands may take; a status of 0 or 143 says that nothing was killed
GROUP = 10001
__all__ = ["COMPONENT", "PATIENCE", "Kind", "Site", "kinds"]


@dataclass(frozen=True)
class Kind:
    """What a controller makes pods of: `name` of the object, the pod's template, and the claims of a StatefulSet."""

    name: str
    template: Object
    claims: tuple[Object, ...] = ()


def kinds(objects: list[Object]) -> dict[str, Kind]:
    """By component: every object that makes pods."""
    found = {}
    for one in objects:
        name, spec = one["metadata"]["name"], one.get("spec", {})
        spec = spec.get("jobTemplate", {}).get("spec", spec)
        template = one if one["kind"] == "Pod" else spec.get("template")
        if template:
            found[template["metadata"]["labels"][COMPONENT]] = Kind(
                name, template, tuple(spec.get("volumeClaimTemplates", ()))
            )
    return found


@dataclass
class Site:
    node: Node
    kinds: dict[str, Kind]
    say: Callable[[str], None]
    steps: list[dict[str, Any]] = field(default_factory=list)
    looks: dict[str, Any] = field(default_factory=dict)
    stops: list[dict[str, Any]] = field(default_factory=list)
    watches: list[dict[str, Any]] = field(default_factory=list)

    def model(self, path: str) -> None:
        """A tiny base model in that folder of the claim `weights`, readable by all."""
        claim = self.node.claim("weights", GROUP)
        lay_model(tiny("llama", self.node.folder / "base"), Path(claim.folder) / path)

    def play(self, component: str, number: int = 0, **changed: Any) -> Pod:
        """A pod of this component, named as its controller would; `changed` replaces keys of its container."""
        kind = self.kinds[component]
        name = f"{kind.name}-{number}".removeprefix(f"{RELEASE}-")
        template = kind.template
        if changed:
            (own,) = template["spec"]["containers"]
            template = {**template, "spec": {**template["spec"], "containers": [{**own, **changed}]}}
        return self.node.play(name, template, kind.claims)

    @contextmanager
    def step(self, name: str) -> Iterator[dict[str, Any]]:
        """Times a step of the course; what it finds goes into the mapping."""
        begun, found = time.monotonic(), {}
        self.say(name)
        yield found
        self.steps.append({"step": name, "seconds": round(time.monotonic() - begun, 1), "found": found})
        self.say(f"  {found}")

    def look(self, pod: Pod) -> None:
        self.looks[pod.name] = looked(pod, self.node.objects)

    def ready(self, pod: Pod, seconds: float = PATIENCE) -> None:
        """Raises Broken where the pod's own probes do not make it started, live and ready in time."""
        assert pod.watch is not None
        ends = time.monotonic() + seconds
        for what, state in (("started", pod.watch.started), ("live", pod.watch.live), ("ready", pod.watch.ready)):
            if not state.wait(max(0.0, ends - time.monotonic())):
                raise Broken(
                    f"{pod.name} is not {what} within {seconds:.0f} s: {pod.watch.history[-3:]} {last_line(pod)}"
                )

    def until(self, true: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
        ends = time.monotonic() + seconds
        while not true():
            if time.monotonic() > ends:
                raise Broken(f"not within {seconds:.0f} s: {what}")
            time.sleep(0.2)

    def stop(self, pod: Pod, statuses: tuple[int, ...] = (0, 143)) -> None:
        """As a deletion does it. Raises Broken where it takes longer than its grace or ends otherwise."""
        grace = pod.spec.get("terminationGracePeriodSeconds", 30)
        stop = pod.stop()
        self.stops.append({"pod": pod.name, "grace": grace, "seconds": round(stop.seconds, 1), "status": stop.status})
        self.gone(pod)
        if stop.status not in statuses or stop.seconds > grace + BUSY:
            raise Broken(f"{pod.name} ended with {stop.status} after {stop.seconds:.1f} s of {grace}")

    def gone(self, pod: Pod) -> None:
        """Removes the pod; what its probes told stays in the report."""
        if pod.watch:
            self.watches.append({"pod": pod.name, "history": pod.watch.history, "restarts": len(pod.restarts)})
        self.node.remove(pod)


def last_line(pod: Pod) -> str:
    return next((line for line in reversed(pod.logs().splitlines()) if line.strip()), "it said nothing")


def said(pod: Pod, what: str, since: int = 0) -> str:
    """Why a probe changed the last time that it changed so; nothing where it never did."""
    assert pod.watch is not None
    return next((f"{change}: {why}" for _, change, why in reversed(pod.watch.history[since:]) if what in change), "")


def run(*words: str) -> str:
    return subprocess.run(words, capture_output=True, text=True).stdout.strip()
