"""Writes the table of values into README.md: `python helm/table.py`. Reads what begins `# --` in values.yaml."""

import json
import re
from pathlib import Path
from typing import Any

import yaml

HERE = Path(__file__).parent
BEGIN, END = "<!-- values: begin -->", "<!-- values: end -->"
KEY = re.compile(r"^( *)([A-Za-z]\w*):")


def rows(text: str) -> list[tuple[str, str, Any]]:
    """(path, what is said, default) of every commented value, in order. Raises ValueError where one has no comment."""
    defaults = yaml.safe_load(text)
    found: list[tuple[str, str, Any]] = []
    path: list[str] = []
    said: list[str] = []
    below: int | None = None  # deeper lines belong to a value that has its comment
    for line in text.splitlines():
        stripped = line.strip()
        if stripped.startswith("# -- "):
            said = [stripped[5:]]
        elif stripped.startswith("#") and said:
            said.append(stripped[1:].strip())
        elif key := KEY.match(line):
            depth = len(key[1]) // 2
            if below is not None and depth > below:
                continue
            below = depth if said else None
            path = [*path[:depth], key[2]]
            value: Any = defaults
            for part in path:
                value = value[part]
            if said:
                found.append((".".join(path), " ".join(said), value))
            elif not isinstance(value, dict) or not value:
                raise ValueError(f"values.yaml: {'.'.join(path)} has no comment")
            said = []
    return found


def table(text: str) -> str:
    """The rows as Markdown."""
    lines = ["| value | default | |", "|---|---|---|"]
    for path, said, default in rows(text):
        shown = json.dumps(default).replace("|", "\\|")
        lines.append(f"| `{path}` | `{shown}` | {said.replace('|', chr(92) + '|')} |")
    return "\n".join(lines)


def with_table(readme: str, text: str) -> str:
    """The README with the table of `text` between its marks."""
    before, rest = readme.split(BEGIN)
    return f"{before}{BEGIN}\n{table(text)}\n{END}{rest.split(END)[1]}"


def main() -> None:
    readme = HERE / "README.md"
    readme.write_text(with_table(readme.read_text(), (HERE / "values.yaml").read_text()))


if __name__ == "__main__":
    main()
