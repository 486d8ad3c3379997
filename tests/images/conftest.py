"""The images' trees, each built once a session when a test first asks for it."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.images.dockerfile import ROOT, Dockerfile
from tests.images.tree import Tree

TARGETS = (("api", "api"), ("worker", "cpu"), ("worker", "cuda"))


@pytest.fixture(scope="session")
def api_file() -> Dockerfile:
    return Dockerfile(ROOT / "api/Dockerfile")


@pytest.fixture(scope="session")
def worker_file() -> Dockerfile:
    return Dockerfile(ROOT / "worker/Dockerfile")


@pytest.fixture(scope="session")
def api_tree(api_file: Dockerfile) -> Iterator[Tree]:
    yield from _built(api_file, "api")


@pytest.fixture(scope="session")
def worker_tree(worker_file: Dockerfile) -> Iterator[Tree]:
    """The CPU worker: two gigabytes, linked where the file system allows it."""
    yield from _built(worker_file, "cpu")


def _built(dockerfile: Dockerfile, target: str) -> Iterator[Tree]:
    tree = Tree(Path(tempfile.mkdtemp(prefix="onward-image-")), dockerfile, target)
    try:
        tree.lay_out()
        for lock in dockerfile.locks(target):
            tree.install(lock)
        tree.finish()
        yield tree
    finally:
        tree.close()
