"""One node: a network on which Services' names resolve, claims, and pods that are played, watched and stopped. What it
makes carries its name, and is gone with it.
"""

import ipaddress
import json
import secrets
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from tempfile import mkdtemp

import yaml

from helm.images.engines import Engine, EngineError
from tests.containers.pods.laid import lay
from tests.containers.pods.pod import HELD, Pod
from tests.containers.pods.translation import Claim, Object, Place, translated
from tests.helm.charts import matches, of_kind, only


class Node:
    """Of `engine`, for the rendered `objects` of one release."""

    def __init__(self, engine: Engine, objects: Sequence[Object]) -> None:
        self.engine, self.objects = engine, list(objects)
        self.name = f"onward-pods-{secrets.token_hex(3)}"
        self.folder = Path(mkdtemp(prefix="onward-pods-"))
        self.folder.chmod(0o711)
        self.secrets = {found["metadata"]["name"]: found["data"] for found in of_kind(self.objects, "Secret")}
        self.translations: dict[str, set[str]] = {}
        self.pods: dict[str, Pod] = {}
        self._claims: dict[str, Claim] = {}
        self._mounted: list[Path] = []
        self._plays = 0
        self._addresses: list[str] = []

    def __enter__(self) -> "Node":
        self.engine.run("network", "create", self.name)
        (found,) = json.loads(self.engine.run("network", "inspect", self.name).stdout)
        hosts = ipaddress.ip_network(found["subnets"][0]["subnet"]).hosts()
        self._addresses = [str(host) for _, host in zip(range(100), hosts, strict=False)][20:]
        return self

    def __exit__(self, *_: object) -> None:
        for pod in list(self.pods.values()):
            with suppress(EngineError, subprocess.TimeoutExpired):
                self.remove(pod)
        for path in self._mounted:
            subprocess.run(["umount", "--lazy", str(path)], capture_output=True)
        for claim in self._claims.values():
            self.engine.run("volume", "rm", "--force", claim.volume, check=False)
        self.engine.run("network", "rm", "--force", self.name, check=False)
        shutil.rmtree(self.folder, ignore_errors=True)

    def left(self) -> list[str]:
        """What the engine still has of this node: nothing, once it was left."""
        asked = {
            "pod": ("pod", "ps", "--format", "{{.Name}}"),
            "container": ("ps", "--all", "--format", "{{.Names}}"),
            "volume": ("volume", "ls", "--format", "{{.Name}}"),
            "network": ("network", "ls", "--format", "{{.Name}}"),
        }
        found: list[str] = []
        for kind, words in asked.items():
            names = self.engine.run(*words).stdout.split()
            found += [f"{kind} {name}" for name in names if name.startswith(self.name)]
        return found + ([str(self.folder)] if self.folder.exists() else [])

    def claim(self, name: str, group: int) -> Claim:
        """The claim's volume, made at the first call: root's, and writable for the group, as kubelet leaves it."""
        if name not in self._claims:
            volume = f"{self.name}-{name}"
            # An owner keeps Podman from giving it to whoever mounts it first.
            self.engine.run("volume", "create", "--opt", f"o=uid=0,gid={group}", volume)
            folder = self.engine.run("volume", "inspect", "--format", "{{.Mountpoint}}", volume).stdout.strip()
            Path(folder).chmod(0o2775)
            self._claims[name] = Claim(volume, folder)
        return self._claims[name]

    def play(self, name: str, template: Object, claims: Sequence[Object] = ()) -> "Pod":
        """Runs a pod of `template` (metadata and spec) under this name; `claims` are those of its StatefulSet. Returns
        once Podman has started it. Raises EngineError."""
        spec = dict(template["spec"])
        own = [self._of_stateful_set(name, claim) for claim in claims]
        spec["volumes"] = [*spec.get("volumes", []), *own]
        self._plays += 1
        place = self._place(f"{self.name}-{name}", spec, self.folder / f"{name}-{self._plays}")
        labels = template["metadata"].get("labels", {})
        document, said = translated(spec, labels, place)
        self.translations.setdefault(labels["app.kubernetes.io/component"], set()).update(said)
        maps = of_kind(self.objects, "ConfigMap")
        file = self.folder / f"{place.name}-{self._plays}.yaml"
        file.write_text(yaml.safe_dump_all([*maps, document]))
        names = [found["metadata"]["name"] for found in of_kind(self.objects, "Service")]
        names = [service for service in names if matches(self._service(service)["spec"]["selector"], labels)]
        options = ",".join([f"ip={place.address}", *(f"alias={service}" for service in names)])
        pod = self.pods[name] = Pod(self.engine, name, place, spec)
        try:
            self.engine.run("kube", "play", "--network", f"{self.name}:{options}", str(file), timeout=HELD)
        except EngineError:
            self.remove(pod)
            raise
        pod.begin()
        return pod

    def remove(self, pod: Pod) -> None:
        self.pods.pop(pod.name, None)
        pod.remove()

    def _service(self, name: str) -> Object:
        return only([found for found in of_kind(self.objects, "Service") if found["metadata"]["name"] == name])

    def _of_stateful_set(self, name: str, claim: Object) -> Object:
        own = claim["metadata"]["name"]
        return {"name": own, "persistentVolumeClaim": {"claimName": f"{own}-{name}"}}

    def _place(self, name: str, spec: Object, folder: Path) -> Place:
        group = spec["securityContext"]["fsGroup"]
        folders, claims = {}, {}
        for volume in spec["volumes"]:
            if "persistentVolumeClaim" in volume:
                wanted = volume["persistentVolumeClaim"]["claimName"]
                claims[wanted] = self.claim(wanted, group)
                continue
            at = folder / volume["name"]
            if lay(volume, at, group, self.secrets):
                self._mounted.append(at)
            folders[volume["name"]] = str(at)
        return Place(name, self._addresses[self._plays], folders, claims)
