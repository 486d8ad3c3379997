"""Written-out training files with one trap each, and what becomes of it: `manifest.json`.

Where a file is accepted, MARK stands in the field at issue, or the file is `same_as` another. `template` is the base's
chat template (`tests/templates.py`, without it Qwen's); a file with `tools` needs one that shows them; `at` job, a file
passes the upload and is refused once a job names the base.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Final

FOLDER: Final = Path(__file__).parent
MARK: Final = "zebra"


@dataclass(frozen=True)
class Trap:
    file: str
    field: str
    value: str
    verdict: str
    line: int | None = None
    says: str | None = None
    same_as: str | None = None
    template: str = "qwen"
    at: str = "upload"
    tools: bool = False

    @property
    def refused(self) -> bool:
        return self.verdict == "refused"

    @property
    def raw(self) -> bytes:
        return (FOLDER / self.file).read_bytes()


TRAPS: Final = [Trap(**entry) for entry in json.loads((FOLDER / "manifest.json").read_text())]
