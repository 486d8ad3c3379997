"""A how-to followed by the letter: its blocks applied to a copy of the code, and its last block run there.

A block says what it is behind its language: `python new=PATH` is a whole file, `diff edit=PATH` lines to add (`+`) and
take away (`-`) among lines that are there (` `), `python run` what proves it, each run in turn.
"""

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
PARTS = ("api", "bench", "cli", "db", "migrations", "worker", "pyproject.toml")
BLOCK = re.compile(r"^```(\w+) (new|edit|run)(?:=(\S+))?\n(.*?)^```$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    kind: str
    path: str
    text: str


def blocks(page: Path) -> list[Block]:
    return [Block(kind, path, text) for _, kind, path, text in BLOCK.findall(page.read_text(encoding="utf-8"))]


def copied(folder: Path) -> Path:
    """The code as it stands, in a folder of its own."""
    for part in PARTS:
        if (ROOT / part).is_dir():
            shutil.copytree(ROOT / part, folder / part, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(ROOT / part, folder / part)
    return folder


def apply(block: Block, tree: Path) -> None:
    path = tree / block.path
    if block.kind == "new":
        assert not path.exists(), f"{block.path} is there already"
        path.write_text(block.text, encoding="utf-8")
        return
    lines = block.text.splitlines(keepends=True)
    before = "".join(line[1:] for line in lines if line[0] in " -")
    after = "".join(line[1:] for line in lines if line[0] in " +")
    text = path.read_text(encoding="utf-8")
    assert text.count(before) == 1, f"{block.path} has the place of this edit {text.count(before)} times:\n{before}"
    path.write_text(text.replace(before, after), encoding="utf-8")


def run(tree: Path, program: str, **env: str) -> str:
    """The output of a program in the tree; what it prints and raises is the assertion's message."""
    environment = {"PATH": f"{Path(sys.executable).parent}:/usr/bin:/bin", "PYTHONPATH": str(tree), **env}
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tree, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def checked(tree: Path, *command: str) -> None:
    """One of the checks that a change must pass, in the tree."""
    done = subprocess.run(
        [str(Path(sys.executable).parent / command[0]), *command[1:]],
        cwd=tree, env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tree)}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
