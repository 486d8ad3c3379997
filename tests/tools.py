"""Where the command line tools lie that tests run for real. Knows their place, not their use."""

import shutil
import sys
from pathlib import Path


def tool(name: str) -> Path:
    """The installed tool `name`: of this environment, else of PATH. Raises FileNotFoundError that says what to do."""
    own = Path(sys.prefix) / "tools" / name
    found = own if own.is_file() else shutil.which(name)
    if found is None:
        raise FileNotFoundError(f"{name} is neither {own} nor on PATH; `bash requirements/tools.sh .venv` installs it")
    return Path(found)
