"""Write every dashboard's JSON into helm/dashboards, or into the folder that is given."""

import sys
from pathlib import Path

from helm.monitoring.dashboards import FOLDER, texts


def main() -> None:
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in texts().items():
        (folder / name).write_text(text)
        print(folder / name)


if __name__ == "__main__":
    main()
