"""Stands in for python:3.11-slim-bookworm: Debian by mmdebstrap, and this interpreter's own CPython under /usr/local.

Needs root, mmdebstrap and a Debian mirror; the interpreter must be a CPython 3.11 with a prefix of its own.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from helm.images.engines import Engine, EngineError, last

MIRROR = "http://deb.debian.org/debian"
# What CPython's own modules are linked to.
LIBRARIES = "ca-certificates,libssl3,libsqlite3-0,libffi8,zlib1g,libbz2-1.0,liblzma5,libreadline8,libncursesw6,libuuid1"
LEFT_OUT = ("doc", "man", "locale", "info")
UNWANTED = ("site-packages", "test", "tests", "idlelib", "tkinter", "turtledemo", "config-*", "__pycache__")


def make(engine: Engine, name: str) -> None:
    """The image `name`. Raises EngineError with one sentence."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    prefix = Path(sys.base_prefix)
    if version != "python3.11" or not (prefix / "lib" / version / "ensurepip").is_dir():
        raise EngineError(f"A stand-in for {name} is made of a CPython 3.11 with ensurepip, and {prefix} is none.")
    if not shutil.which("mmdebstrap") or os.geteuid() != 0:
        raise EngineError(f"A stand-in for {name} needs mmdebstrap, as root.")
    with TemporaryDirectory(prefix="onward-base-") as folder:
        root = Path(folder, "root")
        _run("mmdebstrap", "--quiet", "--variant=minbase", f"--include={LIBRARIES}", "bookworm", str(root), MIRROR)
        root.chmod(0o755)
        _python(prefix, version, root)
        for name_of in LEFT_OUT:
            shutil.rmtree(root / "usr/share" / name_of, ignore_errors=True)
        shutil.rmtree(root / "var/lib/apt/lists", ignore_errors=True)
        archive = Path(folder, "base.tar")
        _run("tar", "-C", str(root), "--exclude=./dev/*", "-cf", str(archive), ".")
        changes = ["ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin", "ENV LANG=C.UTF-8"]
        changes += ["LABEL onward.stands-in=true"]
        engine.run("import", *(word for change in changes for word in ("--change", change)), str(archive), name)


def _python(prefix: Path, version: str, root: Path) -> None:
    """The interpreter, without what is installed for it, and with pip as the official image has it."""
    local = root / "usr/local"
    for place in ("bin", "lib"):
        (local / place).mkdir(parents=True, exist_ok=True)
    shutil.copy2(Path(sys.executable).resolve(), local / "bin" / version)
    for name in ("python3", "python"):
        (local / "bin" / name).symlink_to(version)
    for library in (prefix / "lib").glob("libpython*.so*"):
        shutil.copy2(library, local / "lib", follow_symlinks=False)
    ignored = shutil.ignore_patterns(*UNWANTED)
    shutil.copytree(prefix / "lib" / version, local / "lib" / version, symlinks=True, ignore=ignored)
    (local / "lib" / version / "site-packages").mkdir(exist_ok=True)
    _run("chroot", str(root), "ldconfig")
    _run("chroot", str(root), "/usr/local/bin/python", "-m", "ensurepip", "--altinstall")
    if not (local / "bin/pip").exists():
        (local / "bin/pip").symlink_to(f"pip{version.removeprefix('python')}")


def _run(*words: str) -> None:
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise EngineError(f"{words[0]}: {last(done.stderr or done.stdout)}")
