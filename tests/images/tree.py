"""What an image would hold, built in a folder: its Python, its environment from the locks, its code. Knows no Docker.

The image's paths stand under `root` and its variables point there; a process runs in it as the image's user, who owns
nothing but the folders in `own`.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.images.dockerfile import ROOT, Dockerfile
from tests.waiting import HANG

UID = 10001
# Of the many commands that this machine has, the image's base has these too, and the engine asks for one (lscpu).
COMMANDS = ("sh", "env", "uname", "lscpu", "ldconfig")
AS_ROOT = os.geteuid() == 0


@dataclass
class Tree:
    """One target of a Dockerfile, laid out under `root`."""

    root: Path
    dockerfile: Dockerfile
    target: str
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def venv(self) -> Path:
        return self.root / "opt/venv"

    @property
    def app(self) -> Path:
        return self.root / "app"

    @property
    def state(self) -> Path:
        return self.root / "var/lib/onward"

    @property
    def tmp(self) -> Path:
        return self.root / "tmp"

    @property
    def own(self) -> list[Path]:
        """The folders that the image's user may write: /tmp, and what the Dockerfile gives it."""
        made = any("/var/lib/onward" in run for run in self.dockerfile.all(self.target, "RUN") if "install -d" in run)
        return [self.tmp, *([self.state] if made else [])]

    @property
    def python(self) -> str:
        return str(self.venv / "bin/python")

    @property
    def packages(self) -> Path:
        return next(self.venv.glob("lib/python*/site-packages"))

    def lay_out(self) -> None:
        """Everything but the locks: interpreter, empty environment, code, the user's folders."""
        self.root.chmod(0o755)
        interpreter = _interpreter(self.root / "usr/local")
        for place in (self.venv, self.app, *self.own):
            place.mkdir(parents=True)
        subprocess.run([interpreter, "-m", "venv", "--without-pip", self.venv], check=True, env=self.env())
        for source, to in self.dockerfile.copies(self.target).items():
            if to.startswith("/app/"):
                ignored = shutil.ignore_patterns("__pycache__", "*.pyc")
                shutil.copytree(ROOT / source, self.root / to.lstrip("/"), ignore=ignored)
        subprocess.run([interpreter, "-m", "compileall", "-q", self.app], check=True)
        commands = self.root / "usr/bin"
        commands.mkdir()
        for name in COMMANDS:
            found = shutil.which(name, path="/usr/bin:/bin:/usr/sbin:/sbin")
            assert found, f"this machine has no {name}"
            (commands / name).symlink_to(found)

    def install(self, lock: str) -> None:
        """A lock file, as the Dockerfile installs it: nothing beside it, wheels only, with bytecode."""
        path = str(ROOT / "requirements" / lock)
        if lock == "torch.lock":
            self._install_torch(path)
            return
        mode = "hardlink" if AS_ROOT else "copy"  # a user who owned the linked files could write them
        uv = [str(Path(sys.executable).with_name("uv")), "pip", "install", "--quiet", "--python", self.python]
        alone = ["--no-deps", "--no-build", "--compile-bytecode", "--link-mode", mode, "-r", path]
        subprocess.run([*uv, *alone], check=True)
        (self.venv / ".lock").unlink(missing_ok=True)  # uv's own

    def _install_torch(self, lock: str) -> None:
        """The build that pip's configuration offers, as requirements/install.sh takes it: the image's index of CPU
        builds may be out of reach here. The CUDA build needs its libraries."""
        pip = [sys.executable, "-m", "pip", "--python", self.python, "install", "--quiet", "-r", lock]
        subprocess.run([*pip, "--no-deps"], check=True)
        if (self.packages / "torch/lib/libtorch_cuda.so").exists():
            subprocess.run(pip, check=True)

    def finish(self) -> None:
        """The entry point and the removals, by the Dockerfile's own commands; nothing can be written any more."""
        source = self.dockerfile.sources(self.target)
        scripts = [run for s in source for run in self.dockerfile.all(s, "RUN") if "> /opt/venv/bin/onward" in run]
        (script,) = scripts
        printf = script[script.index("printf ") :].replace("/opt/venv", str(self.venv))
        removals = [run for s in source for run in self.dockerfile.all(s, "RUN") if run.startswith("find /opt/venv")]
        for command in (printf, *(run.replace("/opt/venv", str(self.venv)) for run in removals)):
            subprocess.run(["sh", "-euc", command], check=True)
        if AS_ROOT:
            for place in self.own:
                os.chown(place, UID, UID)
        for folder, _, files in os.walk(self.root):
            if Path(folder) not in self.own:
                os.chmod(folder, 0o555)
                for name in () if AS_ROOT else files:
                    path = Path(folder, name)
                    if not path.is_symlink():
                        path.chmod(path.stat().st_mode & 0o555)

    def env(self, **more: str) -> dict[str, str]:
        """The image's variables, pointing into the tree. What Docker reads from the user's entry is set here."""
        places = re.compile("^(?=/(opt/venv|app|var/lib/onward|tmp)(/|$))")
        found = {name: places.sub(str(self.root), value) for name, value in self.dockerfile.env(self.target).items()}
        found["PATH"] = f"{self.venv}/bin:{self.root}/usr/local/bin:{self.root}/usr/bin"
        found |= {"LD_LIBRARY_PATH": str(self.root / "usr/local/lib"), "TMPDIR": str(self.tmp), "LOGNAME": "onward"}
        return found | more

    def start(self, command: Sequence[str], log: Path, **env: str) -> subprocess.Popen[bytes]:
        """A process in the tree, as the image's user; it ends with the tree."""
        with log.open("wb") as out:
            child = subprocess.Popen(
                [self._executable(command[0]), *command[1:]], stdout=out, stderr=subprocess.STDOUT, **self._as_user(env)
            )
        self.running.append(child)
        return child

    def run(self, command: Sequence[str], **env: str) -> subprocess.CompletedProcess[str]:
        """A process in the tree that ends by itself."""
        whole = [self._executable(command[0]), *command[1:]]
        return subprocess.run(whole, capture_output=True, text=True, timeout=HANG, **self._as_user(env))

    def close(self) -> None:
        for child in self.running:
            if child.poll() is None:
                child.kill()
            child.wait(HANG)
        for folder, _, _ in os.walk(self.root):
            os.chmod(folder, 0o755)
        shutil.rmtree(self.root)

    def size(self) -> int:
        """Bytes of environment and code."""
        found = (
            os.lstat(Path(folder, f)) for top in (self.venv, self.app) for folder, _, fs in os.walk(top) for f in fs
        )
        return sum({(s.st_dev, s.st_ino): s.st_size for s in found}.values())

    def _executable(self, name: str) -> str:
        found = shutil.which(name, path=self.env()["PATH"])
        assert found, f"the image has no {name}"
        return found

    def _as_user(self, env: Mapping[str, str]) -> dict[str, Any]:
        who = {"user": UID, "group": UID, "extra_groups": []} if AS_ROOT else {}
        return {"env": self.env(**env), "cwd": self.app, "stdin": subprocess.DEVNULL, **who}


def _interpreter(prefix: Path) -> Path:
    """A copy of the Python that runs the tests, where every user can reach it, without what is installed for it."""
    base, version = Path(sys.base_prefix), f"python3.{sys.version_info.minor}"
    (prefix / "bin").mkdir(parents=True)
    shutil.copy2(Path(sys.executable).resolve(), prefix / "bin" / version)
    unwanted = shutil.ignore_patterns("site-packages", "dist-packages", "test", "tests", "config-*", "idlelib")
    shutil.copytree(base / "lib" / version, prefix / "lib" / version, symlinks=True, ignore=unwanted)
    for library in (base / "lib").glob("libpython*.so*"):
        shutil.copy2(library, prefix / "lib", follow_symlinks=False)
    return prefix / "bin" / version
