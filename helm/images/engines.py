"""A container engine of this machine, found and made to run: Docker, or Podman where there is none.

Podman's defaults do not hold everywhere: crun refuses hybrid cgroups, without systemd there is nobody to ask for a
cgroup, and limits above the machine's own cannot be set. What is written for it here is a configuration of this
process's own; the machine's is left as it is.
"""

import os
import resource
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

KNOWN: Final = ("docker", "podman")
PATIENCE: Final = 60.0  # seconds for a daemon to answer


class NoEngine(Exception):
    """One sentence: no engine is here, or none that answers."""


class EngineError(Exception):
    """A command of the engine failed; the message is what it said last."""


@dataclass(frozen=True)
class Engine:
    """`program` with `env` beside the process's own variables. `podman` says which of the two it is: a `docker` that is
    Podman's own wrapper counts as Podman."""

    program: str
    podman: bool
    version: str
    env: Mapping[str, str] = field(default_factory=dict)

    @property
    def whole_env(self) -> dict[str, str]:
        return {**os.environ, **self.env}

    def run(self, *args: str, timeout: float | None = None, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """One command, its output as text. Raises EngineError where it fails and `check` is set."""
        done = subprocess.run(
            [self.program, *args], capture_output=True, text=True, env=self.whole_env, timeout=timeout
        )
        if check and done.returncode:
            raise EngineError(f"{Path(self.program).name} {args[0]}: {last(done.stderr or done.stdout)}")
        return done

    def has(self, image: str) -> bool:
        return self.run("image", "inspect", image, check=False).returncode == 0


def find(folder: Path, wanted: str | None = None, path: str | None = None) -> Engine:
    """The engine named `wanted`, else the first of KNOWN that answers, looked for on `path` (the process's own where it
    is left out). Podman's configuration is written into `folder`. Raises NoEngine with one sentence."""
    names = (wanted,) if wanted else KNOWN
    here = [(name, found) for name in names if (found := shutil.which(name, path=path))]
    if not here:
        raise NoEngine(f"No container engine is here: {' or '.join(names)} is not on PATH.")
    silent: list[str] = []
    for name, program in here:
        said = _ask([program, "--version"], {})
        podman = "podman" in said.stdout.lower()
        env = _podman_env(folder) if podman else {"DOCKER_BUILDKIT": "1"}
        if (answer := _ask([program, "info"], env)).returncode == 0:
            return Engine(program, podman, said.stdout.strip(), env)
        silent.append(f"{name} is here and does not answer ({last(answer.stderr)})")
    raise NoEngine("; ".join(silent) + ".")


def last(text: str) -> str:
    """The last line that says something."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing"


def _ask(command: Sequence[str], env: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    try:
        return subprocess.run(command, capture_output=True, text=True, env={**os.environ, **env}, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return subprocess.CompletedProcess(command, 1, "", f"no answer within {PATIENCE:.0f} s")


def _podman_env(folder: Path) -> dict[str, str]:
    """Nothing where systemd and one cgroup hierarchy are there: Podman's own defaults are right."""
    if Path("/run/systemd/system").exists() and Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return {}
    runtime = "runc" if shutil.which("runc") else "crun"
    files, processes = (resource.getrlimit(which)[1] for which in (resource.RLIMIT_NOFILE, resource.RLIMIT_NPROC))
    limits = f'["nofile={_limit(files)}", "nproc={_limit(processes)}"]'
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "containers.conf").write_text(
        f'[engine]\nruntime = "{runtime}"\ncgroup_manager = "cgroupfs"\nevents_logger = "file"\n'
        f"[containers]\ndefault_ulimits = {limits}\n"
    )
    return {"CONTAINERS_CONF": str(folder / "containers.conf"), "BUILDAH_RUNTIME": runtime}


def _limit(value: int) -> str:
    most = 30_000 if value == resource.RLIM_INFINITY else min(value, 30_000)
    return f"{most}:{most}"
