"""`python -m api`: the process that serves the API. Knows only where to begin."""

import os
import signal


def main() -> None:
    # The first process of a container hears no SIGTERM that it has not asked for, and loading takes seconds: until
    # there is something to drain it ends at once, as a shell would say it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    from api.app import main as serve

    serve()


if __name__ == "__main__":
    main()
