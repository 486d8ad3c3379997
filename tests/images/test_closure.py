"""What the entry points import, directly or not, is in the copied folders, and each folder is there for a reason."""

import sys
from dataclasses import dataclass

import grimp
import pytest

from tests.images.dockerfile import ROOT, Dockerfile
from tests.images.tree import Tree

OURS = ("api", "cli", "db", "migrations", "worker")
ENTRIES = {
    "api": ("api.__main__", "cli.__main__", "db.telemetry.http_check"),
    "worker": ("worker.__main__", "cli.__main__", "db.telemetry.http_check"),
}
# Imports inside of functions that lead out of an image, all of the command line: `onward demo` belongs on a developer's
# machine (its packages are in no image), `onward adapters verify` and `onward receipts` are for the worker's image, and
# `onward doctor` asks a processor only where torch is.
AWAY = {
    "api": {
        ("cli.adapters", "worker.adapters.verify"),
        ("cli.doctor", "worker.engine.processor"),
        *(("cli.profiles", f"worker.{name}") for name in ("profiling.make", "profiling.meta", "runs.profiles")),
        *(("cli.receipts", f"worker.adapters.{name}") for name in ("base_files", "receipt", "receipt_audit")),
        *(("cli.receipts", f"worker.{name}") for name in ("quantisation", "scoring.open", "settings")),
    },
    "worker": set(),
}
MISSING = {"api": {"cryptography", "matplotlib", "peft", "torch", "transformers"}, "worker": {"matplotlib"}}


@dataclass(frozen=True)
class Closure:
    """Our modules that are reached, imports that leave the folders, and packages of others that are named."""

    modules: frozenset[str]
    leaving: frozenset[tuple[str, str]]
    others: frozenset[str]


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(*OURS, include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None)


def folders(room: str, target: str) -> set[str]:
    copies = Dockerfile(ROOT / room / "Dockerfile").copies(target)
    return {to.removeprefix("/app/") for to in copies.values() if to.startswith("/app/")}


def closure(graph: grimp.ImportGraph, entries: tuple[str, ...], inside: set[str]) -> Closure:
    seen: set[str] = set()
    leaving: set[tuple[str, str]] = set()
    others: set[str] = set()
    todo = list(entries)
    while todo:
        module = todo.pop()
        if module in seen:
            continue
        seen.add(module)
        for found in graph.find_modules_directly_imported_by(module):
            top = found.partition(".")[0]
            if top in inside:
                todo.append(found)
            elif top in OURS:
                leaving.add((module, found))
            elif top not in sys.stdlib_module_names:
                others.add(top)
    return Closure(frozenset(seen), frozenset(leaving), frozenset(others))


@pytest.mark.parametrize(("room", "target"), [("api", "api"), ("worker", "cpu"), ("worker", "cuda")])
def test_all_that_is_imported_is_copied(graph: grimp.ImportGraph, room: str, target: str) -> None:
    inside = folders(room, target)
    found = closure(graph, ENTRIES[room], inside)
    assert found.leaving == AWAY[room]
    assert {module.partition(".")[0] for module in found.modules} == inside  # every folder is reached


@pytest.mark.parametrize("room", ["api", "worker"])
def test_all_others_packages_are_in_the_locks(
    room: str, graph: grimp.ImportGraph, request: pytest.FixtureRequest
) -> None:
    tree: Tree = request.getfixturevalue(f"{room}_tree")
    found = closure(graph, ENTRIES[room], folders(room, tree.target))
    asked = f"import importlib.util as u; print(*(n for n in {sorted(found.others)} if u.find_spec(n) is None))"
    assert set(tree.run(["python", "-c", asked]).stdout.split()) == MISSING[room]


def test_the_api_image_answers_what_it_cannot_do(api_tree: Tree) -> None:
    """Its command line imports without what it lacks."""
    done = api_tree.run(["python", "-c", "import api.app, cli.main, db.telemetry.http_check, migrations.run"])
    assert (done.returncode, done.stderr) == (0, "")
