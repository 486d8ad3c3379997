"""What a running pod is, seen from inside of it, against what its spec says."""

import base64
import shlex
from typing import Any

from tests.containers.pods.laid import size_of
from tests.containers.pods.pod import Pod, secret_files
from tests.containers.pods.translation import Object
from tests.containers.smoke import Broken
from tests.helm.charts import of_kind

# Never to be written: whatever of these the spec does not mount.
PLACES = ("/", "/app", "/etc", "/opt", "/run", "/srv", "/tmp", "/usr/local/bin", "/var", "/var/lib", "/var/tmp")
CGROUP = "/sys/fs/cgroup"
NOBODY = "0" * 16
# One shell for all of it: on a busy machine each command of the engine takes a second.
SCRIPT = """
say() { printf '\\n@@%s\\n' "$1"; }
try() { why=$(touch "$1/.onward-look" 2>&1) && rm "$1/.onward-look" && why=; printf '%s\\t%s\\n' "$1" "$why"; }
say status; cat /proc/1/status
say command; tr '\\0' '\\n' < /proc/1/cmdline
say environment; env  # that of the first process is gone where it has given itself a title
say places; for one in PLACES; do if [ -d "$one" ]; then try "$one"; fi; done
say mounts; for one in MOUNTS; do try "$one"; done
say listed; for one in FOLDERS; do ls "$one"; done
tell() { printf '%s\\t%s\\t%s\\n' "$1" "$(stat -L -c '%a %u %g' "$1")" "$(base64 -w0 "$1")"; }
say secrets; for one in FILES; do tell "$one"; done
say memory; for one in MEMORY; do printf '%s\\t%s\\n' "$one" "$(stat -f -c '%T %b %S' "$one")"; done
say limits; cat CGROUP/memory/memory.limit_in_bytes CGROUP/cpu/cpu.cfs_quota_us CGROUP/cpu/cpu.cfs_period_us
say token; ls -d /var/run/secrets/kubernetes.io 2>/dev/null
exit 0
"""


def looked(pod: Pod, objects: list[Object]) -> dict[str, Any]:
    """What was found, by what was looked at. Raises Broken where it is not what the spec says."""
    mounts = {mount["mountPath"]: bool(mount.get("readOnly")) for mount in pod.own.get("volumeMounts", [])}
    files = secret_files(pod.spec, {one["metadata"]["name"]: one["data"] for one in of_kind(objects, "Secret")})
    memory = _in_memory(pod)
    script = SCRIPT.replace("CGROUP", CGROUP)
    for name, words in {
        "PLACES": [place for place in PLACES if place not in mounts],
        "MOUNTS": list(mounts),
        "FOLDERS": list(files),
        "FILES": [f"{folder}/{name}" for folder, names in files.items() for name in names],
        "MEMORY": list(memory),
    }.items():
        script = script.replace(f"in {name};", f"in {shlex.join(words)};")
    found: dict[str, list[str]] = {}
    for part in pod.exec("sh", "-c", script).split("\n@@")[1:]:
        what, _, rest = part.partition("\n")
        found[what] = [line for line in rest.split("\n") if line]
    return {
        "user": _user(pod, found["status"]),
        "rights": _rights(pod, found["status"]),
        "command": _command(pod, found["command"]),
        "environment": _environment(pod, found["environment"], of_kind(objects, "ConfigMap")),
        "root": _root(pod, found["places"]),
        "mounts": _mounts(pod, found["mounts"], mounts),
        "secrets": _secrets(pod, found["secrets"], found["listed"], files),
        "memory volumes": _memory(pod, found["memory"], memory),
        "limits": _limits(pod, found["limits"]),
        "token of an account": _token(pod, found["token"]),
    }


def _same(pod: Pod, what: str, found: object, wanted: object) -> object:
    if found != wanted:
        raise Broken(f"{pod.name}: {what} is {found}, and the spec says {wanted}")
    return found


def _status(lines: list[str]) -> dict[str, list[str]]:
    return {name: rest.split() for name, _, rest in (line.partition(":") for line in lines)}


def _user(pod: Pod, lines: list[str]) -> object:
    status, said = _status(lines), pod.spec["securityContext"]
    _same(pod, "the user", set(status["Uid"]), {str(said["runAsUser"])})
    _same(pod, "the group", set(status["Gid"]), {str(said["runAsGroup"])})
    _same(pod, "fsGroup among the groups", str(said["fsGroup"]) in status["Groups"], True)
    if said["runAsNonRoot"] and "0" in status["Uid"]:
        raise Broken(f"{pod.name} runs as root")
    return {"uid": said["runAsUser"], "gid": said["runAsGroup"], "groups": status["Groups"]}


def _rights(pod: Pod, lines: list[str]) -> object:
    """A spec drops all capabilities and allows no escalation; the profile of system calls is the engine's default."""
    status, said = _status(lines), pod.own["securityContext"]
    _same(pod, "capabilities", {"drop": ["ALL"]}, said["capabilities"])
    sets = {name: "".join(status[name]) for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")}
    _same(pod, "the sets of capabilities", sets, dict.fromkeys(sets, NOBODY))
    _same(pod, "NoNewPrivs", status["NoNewPrivs"], ["0" if said["allowPrivilegeEscalation"] else "1"])
    _same(pod, "Seccomp", status["Seccomp"], ["2"])
    return {**sets, "NoNewPrivs": 1, "Seccomp": 2}


def _command(pod: Pod, found: list[str]) -> object:
    """Only where the spec has one, else it is the image's; and not where a shell becomes the server."""
    wanted = [*pod.own.get("command", []), *pod.own.get("args", [])]
    if not wanted or "exec " in wanted[-1]:
        return found[0]
    return _same(pod, "the command", "\n".join(found), "\n".join(wanted))


def _environment(pod: Pod, lines: list[str], objects: list[Object]) -> object:
    maps = {one["metadata"]["name"]: one["data"] for one in objects}
    wanted = {key: str(v) for one in pod.own.get("envFrom", []) for key, v in maps[one["configMapRef"]["name"]].items()}
    wanted |= {one["name"]: one.get("value", pod.place.address) for one in pod.own.get("env", [])}
    found = dict(line.split("=", 1) for line in lines if "=" in line)
    _same(pod, "its environment", {name: found.get(name) for name in wanted}, wanted)
    _same(pod, "what it knows of Services", [name for name in found if "_SERVICE_HOST" in name], [])
    return f"{len(wanted)} variables"


def _tried(lines: list[str]) -> dict[str, str]:
    return dict(line.split("\t", 1) for line in lines)


def _root(pod: Pod, lines: list[str]) -> object:
    _same(pod, "readOnlyRootFilesystem", True, pod.own["securityContext"]["readOnlyRootFilesystem"])
    for place, why in (tried := _tried(lines)).items():
        if "Read-only file system" not in why:
            raise Broken(f"{pod.name}: {place} is not read-only: {why or 'it was written to'}")
    return {"read-only": list(tried)}


def _mounts(pod: Pod, lines: list[str], mounts: dict[str, bool]) -> object:
    found = {path: "refused" if why else "written to" for path, why in _tried(lines).items()}
    wanted = {path: "refused" if read_only else "written to" for path, read_only in mounts.items()}
    return _same(pod, "writing to what is mounted", found, wanted)


def _secrets(pod: Pod, lines: list[str], listed: list[str], files: dict[str, dict[str, str]]) -> object:
    """Each file and no other, with its content and the mode of the spec, readable by the group and by nobody else."""
    _same(pod, "the list of secrets", sorted(listed), sorted(name for names in files.values() for name in names))
    contents = {f"{folder}/{name}": content for folder, names in files.items() for name, content in names.items()}
    found = {path: (said, content) for path, said, content in (line.split("\t") for line in lines)}
    modes = {path: said for path, (said, _) in found.items()}
    _same(
        pod,
        "modes and owners of secrets",
        modes,
        dict.fromkeys(modes, f"440 0 {pod.spec['securityContext']['fsGroup']}"),
    )
    for path, (_, content) in found.items():
        if base64.b64decode(content) != base64.b64decode(contents[path]):
            raise Broken(f"{pod.name}: {path} holds something else than its Secret")
    return modes


def _in_memory(pod: Pod) -> dict[str, int]:
    """{where: bytes} of volumes in memory."""
    mounts = {mount["name"]: mount["mountPath"] for mount in pod.own.get("volumeMounts", [])}
    found = [one for one in pod.spec["volumes"] if one.get("emptyDir", {}).get("medium") == "Memory"]
    return {mounts[one["name"]]: size_of(one["emptyDir"]["sizeLimit"]) for one in found}


def _memory(pod: Pod, lines: list[str], wanted: dict[str, int]) -> object:
    found = {}
    for path, said in _tried(lines).items():
        kind, blocks, size = said.split()
        _same(pod, f"the kind of {path}", kind, "tmpfs")
        found[path] = int(blocks) * int(size)
    return _same(pod, "the size of what is in memory", found, wanted)


def _limits(pod: Pod, lines: list[str]) -> object:
    """The control group's, as the processes inside see it: memory in bytes, processor in cores."""
    said, (memory, quota, period) = pod.own["resources"]["limits"], map(int, lines)
    wanted = {"memory": size_of(said["memory"]), "cores": cores(str(said["cpu"]))}
    return _same(pod, "the limits", {"memory": memory, "cores": quota / period}, wanted)


def cores(quantity: str) -> float:
    """A quantity of processors, such as 500m."""
    return int(quantity[:-1]) / 1000 if quantity.endswith("m") else float(quantity)


def _token(pod: Pod, lines: list[str]) -> object:
    _same(pod, "automountServiceAccountToken", False, pod.spec["automountServiceAccountToken"])
    return _same(pod, "the folder of a token", lines, []) and "none"
