"""Every alert leads to a section of a runbook, no section is left over, and what it tells one to run does run."""

import re
from pathlib import Path

import pytest
from sqlalchemy import text

from tests.monitoring.promql import ALERTS, ROOT, check

FOLDER = ROOT / "docs" / "runbooks"
PAGES = {path: path.read_text() for path in sorted(FOLDER.glob("*.md")) if path.name != "README.md"}
PARTS = ("Means.", "The user feels.", "First look.", "Likely causes, and remedies.", "Over when.", "False alarms.")


def sections(page: str) -> dict[str, str]:
    """Heading of the second level -> what stands under it."""
    parts = re.split(r"^## (.+)$", page, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def blocks(language: str) -> list[str]:
    found = re.findall(rf"^```{language}\n(.*?)^```$", "".join(PAGES.values()), flags=re.MULTILINE | re.DOTALL)
    return [block.strip() for block in found]


SECTIONS = {name: (path, body) for path, page in PAGES.items() for name, body in sections(page).items()}


def anchors(path: Path) -> set[str]:
    """As GitHub makes them from headings."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(), flags=re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ALERTS)
def test_the_runbook_of_an_alert_is_there(name):
    page, _, anchor = ALERTS[name]["annotations"]["runbook_url"].partition("#")
    assert (ROOT / page).is_file()
    assert anchor in anchors(ROOT / page)
    path, body = SECTIONS[name]
    assert path == ROOT / page
    assert [part for part in PARTS if f"**{part}**" in body] == list(PARTS)
    assert re.search(r"^1\. ", body, flags=re.MULTILINE)
    assert "```" in body


def test_no_section_is_left_over():
    assert set(SECTIONS) == set(ALERTS)


def test_links_between_pages_resolve():
    for path in FOLDER.glob("*.md"):
        for page, anchor in re.findall(r"\]\(([\w.]*)#([\w-]+)\)", path.read_text()):
            assert anchor in anchors(FOLDER / page if page else path), (path.name, page, anchor)


def test_the_index_names_every_alert():
    index = (FOLDER / "README.md").read_text()
    for name, rule in ALERTS.items():
        assert f"[{name}]({rule['annotations']['runbook_url'].removeprefix('docs/runbooks/')})" in index


@pytest.mark.parametrize("statement", sorted(set(blocks("sql"))))
def test_sql_runs_on_the_schema(session, statement):
    assert statement.startswith("SELECT")
    session.execute(text("SET TRANSACTION READ ONLY"))
    session.execute(text(statement)).all()


def test_promql_parses(tmp_path):
    check(blocks("promql"), tmp_path)
