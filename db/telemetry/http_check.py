"""`python -m db.telemetry.http_check URL`: exit 0 where the URL answers 200.

The health check of images that have no curl. Knows no service.
"""

import sys
from urllib.error import URLError
from urllib.request import urlopen

SECONDS = 3.0


def main() -> int:
    """Says on stderr what was wrong; exit 2 for a wrong call."""
    if len(sys.argv) != 2:
        print("usage: python -m db.telemetry.http_check URL", file=sys.stderr)
        return 2
    try:
        with urlopen(sys.argv[1], timeout=SECONDS) as answer:
            return int(answer.status != 200)
    except (URLError, OSError, ValueError) as error:
        print(f"{sys.argv[1]}: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
