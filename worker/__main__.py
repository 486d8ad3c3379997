"""`python -m worker`: one base model, one engine, one queue. Knows how to start, not what runs."""

import sys

from pydantic import ValidationError

from worker import environment, log
from worker.settings import get_worker_settings


def main() -> int:
    try:
        settings = get_worker_settings()
    except ValidationError as error:
        print(f"the worker's settings (ONWARD_*) are wrong: {error}", file=sys.stderr)
        return 2
    environment.prepare(settings.threads)
    log.configure()
    from worker.process import run  # after prepare: it imports the engine's libraries

    return run(settings)


if __name__ == "__main__":
    sys.exit(main())
