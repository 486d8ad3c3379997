"""The page of methods says of each what its settings say, and names a page that is there."""

from pathlib import Path

from db.contract import methods

PAGE = Path("docs/methods.md")


def test_every_method_has_its_line_with_its_own_words():
    lines = {line.split("`")[1]: line for line in PAGE.read_text().splitlines() if line.startswith("| `")}
    assert list(lines) == list(methods.ARMS)
    for name, arm in methods.ARMS.items():
        about = arm.about
        for words in (about.formula.replace("|", "\\|"), about.forwards, about.state, about.source):
            assert f"| {words} |" in lines[name], name
