"""Each how-to is true: followed by the letter on a copy of the code, it passes the checks and does what it says."""

from pathlib import Path

import pytest

from tests.bases import tiny
from tests.docs.following import ROOT, apply, blocks, checked, copied, run

HOWTO = ROOT / "docs" / "howto"
PAGES = sorted(path.stem for path in HOWTO.glob("*.md"))


def test_there_is_one_for_what_is_added_most_often():
    assert PAGES == ["architecture", "method", "objective", "route"]


@pytest.mark.parametrize("name", PAGES)
def test_following_it_works(name: str, tmp_path: Path, database_url: str, redis_url: str):
    tree, found = copied(tmp_path / "tree"), blocks(HOWTO / f"{name}.md")
    steps, proofs = [b for b in found if b.kind != "run"], [b for b in found if b.kind == "run"]
    assert steps
    assert proofs
    for block in steps:
        apply(block, tree)
    paths = [str(tree / block.path) for block in steps if block.path.endswith(".py")]
    checked(tree, "ruff", "check", "--config", str(tree / "pyproject.toml"), *paths)
    checked(tree, "ruff", "format", "--check", "--config", str(tree / "pyproject.toml"), *paths)
    checked(tree, "lint-imports")
    base = tiny("llama", tmp_path / "models")
    for block in proofs:
        said = run(
            tree, block.text, ONWARD_DATABASE_URL=database_url, ONWARD_REDIS_URL=redis_url, BASE=str(base),
            ONWARD_MODELS=f'{{"tiny": "{base}"}}', HOME=str(tmp_path),
        )  # fmt: skip
        assert said.strip(), "a proof says what it has seen"


@pytest.mark.parametrize("name", PAGES)
def test_without_its_edits_the_proof_fails(name: str, tmp_path: Path, database_url: str, redis_url: str):
    """The proofs depend on what the page tells to write."""
    tree = copied(tmp_path / "tree")
    base = tiny("llama", tmp_path / "models")
    proof = next(b for b in blocks(HOWTO / f"{name}.md") if b.kind == "run")
    with pytest.raises(AssertionError, match=r"(Error|Exception)"):
        run(
            tree, proof.text, ONWARD_DATABASE_URL=database_url, ONWARD_REDIS_URL=redis_url, BASE=str(base),
            ONWARD_MODELS=f'{{"tiny": "{base}"}}', HOME=str(tmp_path),
        )  # fmt: skip
