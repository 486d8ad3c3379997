"""docker-compose.yml as Compose itself reads it, without an engine. Knows nothing of what the parts do."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import yaml

from tests.images.dockerfile import ROOT

BIN = Path(sys.executable).parent
TOOLS = BIN.parent / "tools"
NEEDED = {"ONWARD_MODEL": "my-model", "ONWARD_MODEL_FOLDER": "/srv/models/my-model"}


def config(*args: str, env: dict[str, str], folder: Path = ROOT) -> "subprocess.CompletedProcess[str]":
    """`docker-compose ARGS config` with these variables and none of this machine's, nor an operator's .env."""
    command = [
        str(BIN / "docker-compose"),
        "--file",
        str(ROOT / "docker-compose.yml"),
        "--project-directory",
        str(folder),
    ]
    clean = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    return subprocess.run(
        [*command, "--env-file", os.devnull, *args, "config"], capture_output=True, text=True, env=clean | env
    )


def composed(*args: str, **env: str) -> dict[str, Any]:
    """The whole project, with what must be set set."""
    done = config(*args, env=NEEDED | env)
    assert (done.returncode, done.stderr) == (0, "")
    parsed: dict[str, Any] = yaml.safe_load(done.stdout)
    return parsed


def script(part: dict[str, Any], places: dict[str, str]) -> list[str]:
    """A part's entrypoint and command, as the container gets them ($$ is one $), with places of the container moved."""
    words = [*(part.get("entrypoint") or []), *(part.get("command") or [])]
    place = re.compile("|".join(map(re.escape, places)))
    return [place.sub(lambda found: places[found[0]], word.replace("$$", "$")) for word in words]
