"""`python -m worker`: one base model, one engine, one queue. Knows how to start, not what runs."""

import logging
import os
import signal
import sys

from pydantic import ValidationError
from pydantic_settings import SettingsError

from db.telemetry import logs, traces
from worker import environment
from worker.settings import get_worker_settings


def main() -> int:
    # The first process of a container hears no SIGTERM that it has not asked for, and the engine's libraries take long:
    # until this worker has signed on it ends at once, as a shell would say it.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(128 + signal.SIGTERM))
    try:
        settings = get_worker_settings()
    except (ValidationError, SettingsError) as error:
        print(f"the worker's settings (ONWARD_*) are wrong: {error}", file=sys.stderr)
        return 2
    environment.prepare(settings.threads)
    logs.configure("worker", settings.log_format, settings.log_level)
    finish = traces.configure("worker")
    from db.contract.tokens.base_model import UnusableBase
    from worker.process import NoDatabase, run  # after prepare: it imports the engine's libraries
    from worker.types import CannotCompute

    try:
        return run(settings)
    except (CannotCompute, UnusableBase) as error:
        print(f"the worker does not start: {error}", file=sys.stderr)
        return 2
    except NoDatabase as error:
        print(f"the worker does not start: {error}", file=sys.stderr)
        return 1
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    finally:
        finish()


if __name__ == "__main__":
    status = main()
    # Everything is committed and closed. Taking an interpreter with an engine's libraries apart takes 2.5 s (measured)
    # that a drain does not have.
    logging.shutdown()
    sys.stdout.flush()
    os._exit(status)
