"""What CONTRIBUTING says of sizes holds, and every module opens with what it is."""

import ast

import pytest

from tests.docs.following import ROOT

FILE, FUNCTION = 250, 40  # lines
WRITTEN = ROOT / "db/contract/evidence.py"  # by the study, from its JSON: a table, as long as what was measured
FILES = sorted(p for part in ("api", "db", "worker") for p in (ROOT / part).rglob("*.py") if p != WRITTEN)


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_are_short_and_say_what_they_are(path):
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(text)
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    assert len(text.splitlines()) <= FILE
    assert not [f.name for f in functions if (f.end_lineno or 0) - f.lineno + 1 > FUNCTION]
    assert not text.strip() or ast.get_docstring(tree)
