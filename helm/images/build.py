"""One image built: the command an engine is given, and what came of it, layer by layer."""

import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from helm.images.engines import Engine, EngineError, last
from helm.images.targets import BASE, BASE_BYTES, ROOT, Target

CERTIFICATES: Final = "/run/secrets/certificates"  # where the Dockerfiles mount them
SMALL: Final = 1e6  # bytes of a layer below which it is not worth a line
# What a build says last where an index is at fault, and not the Dockerfile.
INDEX: Final = re.compile(
    r"No matching distribution|Could not find a version|Connection to \S+ timed out|NewConnectionError"
    r"|SSLError|Max retries exceeded|Failed to establish a new connection|Name or service not known"
)


@dataclass(frozen=True)
class Sources:
    """Where a build takes things from. `pip_conf` replaces what `index` and `certificates` would say to pip; `fresh`
    has every layer built again."""

    base: str = BASE
    index: str | None = None
    torch_index: str | None = None
    certificates: Path | None = None
    pip_conf: Path | None = None
    host_network: bool = False
    fresh: bool = False


@dataclass(frozen=True)
class Layer:
    size: int
    made_by: str


@dataclass(frozen=True)
class Built:
    """`size` and `base_size` in bytes, `seconds` of wall-clock, `digest` the image's id."""

    target: Target
    digest: str
    size: int
    base_size: int
    base_digest: str
    seconds: float
    layers: tuple[Layer, ...] = field(repr=False)

    @property
    def own(self) -> int:
        """What the Dockerfile adds to its base."""
        return self.size - self.base_size

    @property
    def expected(self) -> float:
        """The size on a base of the published one's size: what the aim is for."""
        return self.own + BASE_BYTES


def want_base(engine: Engine, base: str) -> None:
    """The base is here or is pulled. Raises EngineError with one sentence."""
    if engine.has(base):
        return
    done = engine.run("pull", base, check=False)
    if done.returncode:
        raise EngineError(f"The base image {base} is not here and cannot be pulled ({last(done.stderr)}): give --base.")


def command(engine: Engine, target: Target, sources: Sources, revision: str, secrets: Mapping[str, Path]) -> list[str]:
    """The engine's words. Without --format docker Podman would drop HEALTHCHECK, which its own format has not."""
    args = {"PYTHON": sources.base, "REVISION": revision}
    if sources.torch_index and "torch.lock" in target.locks:
        args["TORCH_INDEX"] = sources.torch_index
    words = [engine.program, "build", "--file", target.file, "--target", target.target, "--tag", target.image]
    words += ["--format", "docker"] if engine.podman else ["--progress", "plain"]
    words += ["--network", "host"] if sources.host_network else []
    words += ["--no-cache"] if sources.fresh else []
    for name, value in args.items():
        words += ["--build-arg", f"{name}={value}"]
    for name, path in secrets.items():
        words += ["--secret", f"id={name},src={path}"]
    return [*words, "."]


@contextmanager
def secrets(sources: Sources) -> Iterator[dict[str, Path]]:
    """What is mounted while packages are installed and is in no layer: pip's configuration, and certificates."""
    with TemporaryDirectory(prefix="onward-build-") as folder:
        found: dict[str, Path] = {}
        if sources.certificates:
            found["certificates"] = sources.certificates
        if sources.pip_conf:
            found["pip"] = sources.pip_conf
        elif sources.index or sources.certificates:
            lines = ["[global]", "timeout = 180"]
            lines += [f"index-url = {sources.index}"] if sources.index else []
            lines += [f"cert = {CERTIFICATES}"] if sources.certificates else []
            found["pip"] = Path(folder, "pip.conf")
            found["pip"].write_text("\n".join(lines) + "\n")
        yield found


def build(engine: Engine, target: Target, sources: Sources, revision: str) -> Built:
    """Builds and measures. The engine's own lines go to standard error. Raises EngineError with one sentence."""
    begun = time.monotonic()
    with secrets(sources) as mounted:
        words = command(engine, target, sources, revision, mounted)
        said = _followed(words, engine)
    if said is not None:
        if INDEX.search("\n".join(said)):
            where = sources.index or "the package index"
            raise EngineError(
                f"{target.name}: {where} does not give what {' or '.join(target.locks)} pins ({said[-1]})."
            )
        raise EngineError(f"{target.name}: the build failed: {said[-1]}.")
    seconds = time.monotonic() - begun
    digest, size = _inspected(engine, target.image)
    base_digest, base_size = _inspected(engine, sources.base)
    return Built(target, digest, size, base_size, base_digest, seconds, layers(engine, target.image))


def _followed(words: list[str], engine: Engine) -> list[str] | None:
    """None where the command succeeded, else its last lines that say something."""
    with subprocess.Popen(
        words, cwd=ROOT, env=engine.whole_env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as child:
        assert child.stdout is not None
        said: list[str] = []
        for line in child.stdout:
            print(f"  {line.rstrip()}", file=sys.stderr, flush=True)
            said = [*said[-19:], line.strip()] if line.strip() else said
    return (said or ["it said nothing"]) if child.returncode else None


def _inspected(engine: Engine, image: str) -> tuple[str, int]:
    digest, size = engine.run("image", "inspect", "--format", "{{.Id}} {{.Size}}", image).stdout.split()
    return digest if digest.startswith("sha256:") else f"sha256:{digest}", int(size)


def layers(engine: Engine, image: str) -> tuple[Layer, ...]:
    """The layers that hold something, the newest first."""
    if engine.podman:
        rows = json.loads(engine.run("history", "--no-trunc", "--format", "json", image).stdout)
        found = [(int(row["size"]), str(row["CreatedBy"])) for row in rows]
    else:
        said = engine.run("history", "--no-trunc", "--human=false", "--format", "{{json .}}", image).stdout
        found = [(int(row["Size"]), str(row["CreatedBy"])) for row in map(json.loads, said.splitlines())]
    return tuple(Layer(size, made_by) for size, made_by in found if size >= SMALL)
