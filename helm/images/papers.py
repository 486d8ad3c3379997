"""What an image is made of (an SBOM, CycloneDX) and what it was made from (provenance, SLSA 1.0), beside the image."""

import hashlib
import json
import shutil
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from helm.images.build import Built, Sources
from helm.images.engines import Engine
from helm.images.targets import ROOT, Target


def revision(root: Path = ROOT) -> str:
    """The commit, with `-dirty` where the tree differs from it; `unknown` outside a repository, or without git."""
    if not (git := shutil.which("git")):
        return "unknown"
    head, changed = (
        subprocess.run([git, "-C", str(root), *words], capture_output=True, text=True)
        for words in (("rev-parse", "HEAD"), ("status", "--porcelain"))
    )
    if head.returncode:
        return "unknown"
    return head.stdout.strip() + ("-dirty" if changed.stdout.strip() else "")


def sbom(target: Target, to: Path, root: Path = ROOT) -> int:
    """Writes the packages of the target's locks, with their hashes, by cyclonedx-bom, which holds what it wrote against
    CycloneDX's own schema; how many they are. Debian's packages of the base are the base's to list."""
    pins = "".join((root / "requirements" / lock).read_text() for lock in target.locks)
    words = [sys.executable, "-m", "cyclonedx_py", "requirements", "-", "--pyproject", str(root / "pyproject.toml")]
    words += ["--mc-type", "application", "--output-reproducible", "--validate", "--of", "JSON", "-o", str(to)]
    subprocess.run(words, input=pins, check=True, capture_output=True, text=True)
    return len(json.loads(to.read_text())["components"])


def provenance(built: Built, engine: Engine, sources: Sources, commit: str, root: Path = ROOT) -> dict[str, Any]:
    """An in-toto statement of the predicate SLSA provenance 1.0. Unsigned: it says what was done here, and proves it to
    nobody."""
    target = built.target
    read = [target.file, *(f"requirements/{lock}" for lock in target.locks)]
    inputs = [{"uri": name, "digest": {"sha256": _sha256(root / name)}} for name in read]
    base = {"uri": sources.base, "digest": {"sha256": built.base_digest.removeprefix("sha256:")}}
    finished = datetime.now(UTC)
    external = {
        "dockerfile": target.file,
        "target": target.target,
        "index": sources.index,
        "torchIndex": sources.torch_index,
    }
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [{"name": target.image, "digest": {"sha256": built.digest.removeprefix("sha256:")}}],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "https://github.com/opencontainers/image-spec/dockerfile",
                "externalParameters": external,
                "resolvedDependencies": [{"uri": "git", "digest": {"gitCommit": commit}}, base, *inputs],
            },
            "runDetails": {
                "builder": {"id": engine.version},
                "metadata": {"finishedOn": finished.isoformat(timespec="seconds"), "seconds": round(built.seconds, 1)},
            },
        },
    }


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
