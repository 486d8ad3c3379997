"""Volumes laid out in folders of a node, as kubelet does it: owners, modes, links, memory. Needs root."""

import base64
import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

Object = dict[str, Any]
UNITS = {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30}


def lay(volume: Object, folder: Path, group: int, secrets: Mapping[str, Mapping[str, str]]) -> bool:
    """The volume in `folder`, which is made; whether something is mounted there. Claims are not laid out here.
    Raises KeyError where a secret or a key of it is not there."""
    folder.mkdir(parents=True)
    if "emptyDir" in volume:
        mounted = volume["emptyDir"].get("medium") == "Memory"
        if mounted:
            size = size_of(volume["emptyDir"]["sizeLimit"])
            _run("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder))
        _own(folder, group, 0o2777)
        return mounted
    said = volume.get("projected") or {"defaultMode": volume["secret"].get("defaultMode"), "sources": []}
    sources = [source["secret"] for source in said["sources"]] or [volume["secret"]]
    _write(folder, _files(sources, secrets), said.get("defaultMode") or 0o644, group)
    return False


def size_of(quantity: str) -> int:
    """A quantity of bytes, such as 64Mi."""
    unit = quantity[-2:]
    return int(quantity.removesuffix(unit)) * UNITS[unit] if unit in UNITS else int(quantity)


def _files(sources: list[Object], secrets: Mapping[str, Mapping[str, str]]) -> dict[str, bytes]:
    found = {}
    for source in sources:
        data = secrets[source.get("name") or source["secretName"]]
        for item in source.get("items") or [{"key": key, "path": key} for key in data]:
            found[item["path"]] = base64.b64decode(data[item["key"]])
    return found


def _write(folder: Path, files: Mapping[str, bytes], mode: int, group: int) -> None:
    """Files lie in a folder that a link names, so that an update of all of them is one rename: kubelet's own way."""
    real = folder / "..2026_01_01"
    real.mkdir()
    for name, content in files.items():
        (real / name).write_bytes(content)
        _own(real / name, group, mode)
        (folder / name).symlink_to(f"..data/{name}")
    (folder / "..data").symlink_to(real.name)
    _own(real, group, 0o2755)
    _own(folder, group, 0o2755)


def _own(path: Path, group: int, mode: int) -> None:
    os.chown(path, 0, group)
    path.chmod(mode)


def _run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


def lay_model(source: Path, folder: Path) -> None:
    """A copy that every user may read."""
    shutil.copytree(source, folder)
    folder.chmod(0o755)
    for path in folder.iterdir():
        path.chmod(0o644)
