"""A pod that is running: asked, watched, stopped and started again as kubelet does it."""

import json
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from helm.images.engines import Engine, EngineError, last
from tests.containers.pods.probes import Watch, probes
from tests.containers.pods.translation import Object, Place
from tests.helm.charts import only

HELD = 600.0  # seconds for any command of the engine
REMOVALS = 10  # tries
SLACK = 2  # seconds that kubelet leaves a container at the least between SIGTERM and SIGKILL


@dataclass(frozen=True)
class Stop:
    """`seconds` from the wish to the end, preStop among them."""

    status: int
    seconds: float


@dataclass
class Pod:
    """A pod that was played. Its one container is `container`; `spec` is as it was rendered."""

    engine: Engine
    name: str
    place: Place
    spec: Object
    watch: Watch | None = None
    restarts: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._leaving = threading.Event()
        self._pid = 0

    @property
    def own(self) -> Object:
        """Its one container's spec."""
        return only(self.spec["containers"])

    @property
    def container(self) -> str:
        return f"{self.place.name}-{self.own['name']}"

    def begin(self) -> None:
        self._pid = self.state()["Pid"]
        if asked := probes(self.own):
            self.watch = Watch(asked, self.place.address, self._executed, self._dead)
        if self.spec.get("restartPolicy", "Always") == "Always":
            threading.Thread(target=self._notice, daemon=True).start()

    def _notice(self) -> None:
        """Podman starts an ended container again by the pod's restart policy; this says so to the probes."""
        while not self._leaving.wait(0.5):
            if self._pid and Path(f"/proc/{self._pid}").exists():
                continue
            with suppress(EngineError, IndexError):
                state = self.state()
                if state["Pid"] and state["Pid"] != self._pid:
                    self._pid = state["Pid"]
                    self.restarts.append(state["StartedAt"])
                    if self.watch:
                        self.watch.restarted("its process had ended")

    def _dead(self) -> None:
        """As kubelet does with a container whose startup or liveness probe failed too often."""

        def again() -> None:
            with suppress(EngineError):
                self._end()
            # Podman stops a pod whose last container has ended, in its own time: until it has, a start can be undone.
            while not self._leaving.wait(2.0):
                with suppress(EngineError):
                    if self.state()["Status"] == "running" and self._reached():
                        return
                self.engine.run("pod", "start", self.place.name, check=False)

        threading.Thread(target=again, daemon=True).start()

    def _executed(self, command: Sequence[str], seconds: float) -> str:
        try:
            done = self.engine.run("exec", self.container, *command, timeout=seconds, check=False)
        except subprocess.TimeoutExpired:
            return f"no end within {seconds:g} s"
        return "" if done.returncode == 0 else last(done.stderr + done.stdout)

    def exec(self, *command: str, check: bool = True) -> str:
        """What a command in the container printed. Raises EngineError where it fails and `check` is set."""
        done = self.engine.run("exec", self.container, *command, timeout=HELD, check=check)
        return done.stdout if check else done.stdout + done.stderr

    def state(self) -> dict[str, Any]:
        found = json.loads(self.engine.run("container", "inspect", self.container).stdout)
        return found[0]["State"]  # type: ignore[no-any-return]

    def logs(self) -> str:
        done = self.engine.run("logs", self.container, check=False)
        return done.stdout + done.stderr

    def signal(self, name: str) -> None:
        """To its first process, from the node."""
        subprocess.run(["kill", f"-{name}", str(self.state()["Pid"])], check=True)

    def ended(self, seconds: float) -> int:
        """The exit status of a container that ends by itself. Raises EngineError after `seconds`."""
        ends = time.monotonic() + seconds
        while (state := self.state())["Status"] not in ("exited", "stopped"):
            if time.monotonic() > ends:
                raise EngineError(f"{self.name} has not ended within {seconds:.0f} s")
            time.sleep(0.3)
        return int(state["ExitCode"])

    def stop(self) -> Stop:
        """As kubelet: preStop, the image's signal, and SIGKILL when the grace of the spec is over. It is not started
        again; its container is still there to be asked."""
        self._leaving.set()
        if self.watch:
            self.watch.close()
        return self._end()

    def _reached(self) -> bool:
        """Whether the pod's own network is there."""
        form, name = "{{.State}}", self.place.name
        return self.engine.run("pod", "inspect", "--format", form, name).stdout.strip() == "Running"

    def _end(self) -> Stop:
        begun, grace = time.monotonic(), self.spec.get("terminationGracePeriodSeconds", 30)
        before = self.own.get("lifecycle", {}).get("preStop", {})
        if "sleep" in before:
            time.sleep(min(before["sleep"]["seconds"], grace))
        elif "exec" in before:
            self._executed(before["exec"]["command"], grace)
        left = max(SLACK, round(grace - (time.monotonic() - begun)))
        self.engine.run("stop", "--time", str(left), self.container, timeout=HELD)
        return Stop(int(self.state()["ExitCode"]), time.monotonic() - begun)

    def remove(self) -> None:
        """Raises EngineError where it cannot be. One that ends again and again may begin between Podman's look at
        the pod and its end: what could not be removed then can be a moment later."""
        self._leaving.set()
        if self.watch:
            self.watch.close()
        command = ("pod", "rm", "--force", "--ignore", "--time", "0", self.place.name)
        for _ in range(REMOVALS):
            with suppress(EngineError):
                self.engine.run(*command, timeout=HELD)
                return
            time.sleep(0.5)
        self.engine.run(*command, timeout=HELD)


def secret_files(spec: Object, secrets: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """{where it is mounted: {file: its content in base64}} of every secret that a pod mounts."""
    found = {}
    for mount in only(spec["containers"]).get("volumeMounts", []):
        (volume,) = [one for one in spec["volumes"] if one["name"] == mount["name"]]
        if not {"projected", "secret"} & volume.keys():
            continue
        sources = [one["secret"] for one in volume.get("projected", {}).get("sources", [])] or [volume["secret"]]
        found[mount["mountPath"]] = {
            item["path"]: secrets[source.get("name") or source["secretName"]][item["key"]]
            for source in sources
            for item in source["items"]
        }
    return found
