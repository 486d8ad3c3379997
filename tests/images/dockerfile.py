"""A Dockerfile read as far as its proofs need: what a target copies, installs, sets and runs. Knows no engine."""

import json
import re
import shlex
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parents[2]


@dataclass
class Stage:
    """One FROM: what it builds on (a stage's name or an image) and its instructions in order."""

    name: str
    base: str
    instructions: list[tuple[str, str]] = field(default_factory=list)


class Dockerfile:
    """The stages of one file, by name. ARG defaults are filled in where FROM names them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.stages: dict[str, Stage] = {}
        args: dict[str, str] = {}
        stage: Stage | None = None
        for word, rest in _instructions(path.read_text()):
            if word == "FROM":
                image, _, name = rest.partition(" AS ")
                stage = Stage(name, re.sub(r"\$\{(\w+)\}", lambda m: args[m[1]], image))
                self.stages[name] = stage
            elif stage is None:
                name, _, default = rest.partition("=")
                args[name] = default
            else:
                stage.instructions.append((word, rest))

    def lineage(self, target: str) -> list[Stage]:
        """The stages that `target` consists of, the oldest first."""
        found = [self.stages[target]]
        while found[0].base in self.stages:
            found.insert(0, self.stages[found[0].base])
        return found

    def base_image(self, target: str) -> str:
        return self.lineage(target)[0].base

    def all(self, target: str, word: str) -> list[str]:
        """What follows each `word` in the stages of `target`."""
        return [rest for stage in self.lineage(target) for w, rest in stage.instructions if w == word]

    def last(self, target: str, word: str) -> str:
        """The instruction that counts. Raises IndexError where `target` has none."""
        return self.all(target, word)[-1]

    def command(self, target: str) -> list[str]:
        parsed: list[str] = json.loads(self.last(target, "CMD"))
        return parsed

    def health(self, target: str) -> list[str]:
        """The command of the health check."""
        parsed: list[str] = json.loads(self.last(target, "HEALTHCHECK").partition("CMD ")[2])
        return parsed

    def env(self, target: str) -> dict[str, str]:
        pairs = (pair.partition("=") for line in self.all(target, "ENV") for pair in shlex.split(line))
        return {name: value for name, _, value in pairs}

    def labels(self, target: str) -> dict[str, str]:
        pairs = (pair.partition("=") for line in self.all(target, "LABEL") for pair in shlex.split(line))
        return {name: value for name, _, value in pairs}

    def sources(self, target: str) -> list[str]:
        """The stages that `target` copies from."""
        copies = (re.match(r"--from=(\S+)", rest) for rest in self.all(target, "COPY"))
        return list(dict.fromkeys(m[1] for m in copies if m))

    def copies(self, target: str) -> dict[str, str]:
        """What of the repository comes into `target`: path -> place, through the stages that it copies from."""
        stages = [target, *self.sources(target)]
        lines = [rest.split() for stage in stages for rest in self.all(stage, "COPY") if not rest.startswith("--from")]
        return {source: to for *sources, to in lines for source in sources}

    def locks(self, target: str) -> list[str]:
        """The lock files that fill the target's environment, in the order of their installation."""
        runs = (run for stage in self.sources(target) for run in self.all(stage, "RUN"))
        return [name for run in runs for name in re.findall(r"-r /lock/(\S+)", run)]

    def packages(self, target: str) -> set[str]:
        """Debian packages that the target adds to its base."""
        lines = " ".join(self.all(target, "RUN"))
        found = re.findall(r"apt-get install ((?:-\S+ )*)([^&]*)", lines)
        return {name for _, names in found for name in names.split()}


def _instructions(text: str) -> list[tuple[str, str]]:
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\s*\\\n\s*", " ", "\n".join(lines)).splitlines()
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined)]
