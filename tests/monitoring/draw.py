"""`python -m tests.monitoring.draw [SECONDS]`: a longer run like the live test's, and every dashboard drawn from it."""

import sys
import time

from helm.monitoring import pictures
from tests.monitoring.live import live


def main() -> None:
    seconds = float(sys.argv[1]) if len(sys.argv) > 1 else 180.0
    with live() as made:
        began = time.time()
        made.work(lambda: time.time() - began > seconds, every=3.0)
        pictures.every(made.prometheus, began, made.busy_until)


if __name__ == "__main__":
    main()
