"""Pages name what is there: every path of the code in backticks exists, and every decision is in the index."""

import re
from pathlib import Path

import pytest

from tests.docs.following import ROOT

FOLDERS = "api|bench|cli|db|docs|helm|migrations|tests|worker"
PAGES = [
    ROOT / "CONTRIBUTING.md", ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")),
    *sorted((ROOT / "docs" / "howto").glob("*.md")), *sorted((ROOT / "docs" / "decisions").glob("*.md")),
]  # fmt: skip
NAMED = re.compile(rf"`((?:{FOLDERS})/[\w./-]*)`")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_path_that_a_page_names_is_there(page: Path):
    made = set(re.findall(r"^```\w+ new=(\S+)$", page.read_text(), re.M))  # by who follows a how-to
    gone = [name for name in NAMED.findall(page.read_text()) if not (ROOT / name).exists() and name not in made]
    assert not gone


def test_the_annotated_tree_has_every_room():
    tree = (ROOT / "docs" / "architecture.md").read_text().partition("## The tree")[2].partition("Who may import")[0]
    rooms = [p for part in ("api", "db", "worker") for p in (ROOT / part).iterdir() if not p.name.startswith("_")]
    missing = [
        str(p.relative_to(ROOT)) for p in rooms
        if (p.is_dir() and f"  {p.name}/" not in tree) or (p.suffix == ".py" and not re.search(rf"\b{p.stem}\b", tree))
    ]  # fmt: skip
    assert not missing


def test_the_index_of_decisions_is_whole():
    index = (ROOT / "docs" / "decisions" / "README.md").read_text()
    pages = {path.name for path in (ROOT / "docs" / "decisions").glob("0*.md")}
    assert set(re.findall(r"\]\((0\d{3}-[\w-]+\.md)\)", index)) == pages
