"""A pod's spec as kubelet takes it, into one that `podman kube play` 4.3.1 takes. Pure: it makes nothing.

What Podman reads goes through untouched. A key that is neither read, nor translated, nor known to be done elsewhere is
refused, so that a chart that grows cannot lose something here in silence.
"""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from typing import Any

Object = dict[str, Any]

READ_OF_POD = {"containers", "initContainers", "restartPolicy", "securityContext", "volumes"}
READ_OF_CONTAINER = {
    *("name", "image", "imagePullPolicy", "command", "args", "env", "envFrom"),
    *("resources", "securityContext", "volumeMounts", "workingDir"),
}
# What Podman passes over, and who does it instead.
ELSEWHERE = {
    "serviceAccountName": "no API server is here; that no token is mounted is looked at inside",
    "automountServiceAccountToken": "no API server is here; that no token is mounted is looked at inside",
    "enableServiceLinks": "that no variable of a Service is there is looked at inside",
    "topologySpreadConstraints": "a scheduler's: one node is here",
    "terminationGracePeriodSeconds": "Podman would give 10 seconds: the node stops pods with the grace of the spec",
    "startupProbe": "asked by the node",
    "readinessProbe": "asked by the node",
    "lifecycle": "preStop is done by the node",
}
UNSAFE = {
    "livenessProbe": "Podman makes a `curl` to port 0 of a named port: taken out, asked by the node",
    "ports": "Podman would publish each on every address of the machine: taken out, reached by the pod's address",
}


class Unread(Exception):
    """Podman would lose this part of the spec, and nothing here does it instead; one sentence."""


@dataclass(frozen=True)
class Claim:
    """The named volume that a claim is on this node, and the folder that it is."""

    volume: str
    folder: str


@dataclass(frozen=True)
class Place:
    """Where a node has put what a pod asks for. `folders` by the name of a volume, `claims` by the name of a claim."""

    name: str
    address: str
    folders: Mapping[str, str] = field(default_factory=dict)
    claims: Mapping[str, Claim] = field(default_factory=dict)


def translated(spec: Object, labels: Mapping[str, str], place: Place) -> tuple[Object, list[str]]:
    """The Pod to play, and a line for each thing that was changed or is done elsewhere. Raises Unread."""
    said: list[str] = []
    played = {key: deepcopy(value) for key, value in spec.items() if _kept(key, READ_OF_POD, said)}
    _groups(played, said)
    mounted = _volumes(played, place, said)
    for kind in ("initContainers", "containers"):
        for number, container in enumerate(played.get(kind, [])):
            own = {key: value for key, value in container.items() if _kept(key, READ_OF_CONTAINER, said)}
            _environment(own, place, said)
            _sub_paths(own, mounted, played, said)
            played[kind][number] = own
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": place.name, "labels": dict(labels)}, "spec": played}
    return pod, sorted(set(said))


def _kept(key: str, read: set[str], said: list[str]) -> bool:
    if key in read:
        return True
    why = ELSEWHERE.get(key) or UNSAFE.get(key)
    if why is None:
        raise Unread(f"{key}: Podman does not read it, and nothing here does it instead")
    said.append(f"{key}: {why}")
    return False


def _groups(played: Object, said: list[str]) -> None:
    """Podman passes over `fsGroup`; kubelet adds it to the groups of every process."""
    security = played.get("securityContext", {})
    if (group := security.get("fsGroup")) is not None:
        security["supplementalGroups"] = sorted({*security.get("supplementalGroups", []), group})
        said.append(
            "securityContext.fsGroup: among supplementalGroups, and the group of folders that the node lays out"
        )


def _volumes(played: Object, place: Place, said: list[str]) -> dict[str, str]:
    """The folder of each volume, by its name; secrets and empty folders become the node's, claims named volumes."""
    folders: dict[str, str] = {}
    for volume in played.get("volumes", []):
        name = volume["name"]
        (kind,) = volume.keys() - {"name"}
        if kind == "persistentVolumeClaim":
            claim = place.claims[volume[kind]["claimName"]]
            volume[kind]["claimName"] = folders[name] = claim.volume
            folders[name] = claim.folder
            said.append("persistentVolumeClaim: a named volume of this run, the group that of fsGroup")
        elif kind in ("secret", "projected", "emptyDir"):
            folders[name] = place.folders[name]
            del volume[kind]
            volume["hostPath"] = {"path": folders[name], "type": "Directory"}
            said.append(f"{kind}: {_REASONS[kind]}")
        elif kind != "configMap":
            raise Unread(f"volume {name}: a {kind} is not laid out here")
    return folders


_REASONS = {
    "secret": "Podman crashes on one: a folder that the node lays out as kubelet does, with the modes of the spec",
    "projected": "Podman cannot read one: a folder that the node lays out as kubelet does, with the modes of the spec",
    "emptyDir": "Podman would not make it the group's, nor in memory: a folder of the node's, a tmpfs of its size "
    "where the medium is Memory",
}


def _environment(container: Object, place: Place, said: list[str]) -> None:
    known = {"status.podIP": place.address, "metadata.name": place.name}
    for variable in container.get("env", []):
        source = variable.get("valueFrom")
        if source is None:
            continue
        path = source.get("fieldRef", {}).get("fieldPath")
        if path not in known:
            raise Unread(f"{variable['name']}: no value for {source} is known here")
        del variable["valueFrom"]
        variable["value"] = known[path]
        said.append(f"fieldRef {path}: its value, which the node chose before the pod began")


def _sub_paths(container: Object, folders: Mapping[str, str], played: Object, said: list[str]) -> None:
    """Podman passes over `subPath` and would mount the whole volume: each becomes a folder of its own, as kubelet's."""
    for mount in container.get("volumeMounts", []):
        if "subPathExpr" in mount:
            raise Unread(f"{mount['mountPath']}: subPathExpr is not read here")
        if (below := mount.pop("subPath", None)) is None:
            continue
        name = f"{mount['name']}-below-{len(played['volumes'])}"
        played["volumes"].append({"name": name, "hostPath": {"path": f"{folders[mount['name']]}/{below}"}})
        mount["name"] = name
        said.append("subPath: Podman would mount the whole volume: the folder below it")
