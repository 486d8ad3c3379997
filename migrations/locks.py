"""All locks of a revision at once, so that what serves meanwhile is waited for and never deadlocked. Knows no table."""

import time
from typing import Final

from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import OperationalError

PATIENCE_SECONDS: Final = 60.0
AGAIN_SECONDS: Final = 0.01


def lock_all(connection: Connection) -> None:
    """Every table there is, until the revision's transaction ends: all at once or none, and never waited for with one
    in hand. Else what serves, and locks tables in orders of its own, and this would wait for each other.

    But for files' chunks, which an upload holds for as long as it takes. Raises OperationalError after
    `PATIENCE_SECONDS`.
    """
    names = [name for name in inspect(connection).get_table_names() if name != "file_chunks"]
    wanted = text(f"LOCK TABLE {', '.join(names)} IN ACCESS EXCLUSIVE MODE NOWAIT")
    patient_until = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            with connection.begin_nested():
                connection.execute(wanted)
            return
        except OperationalError:
            if time.monotonic() > patient_until:
                raise
            time.sleep(AGAIN_SECONDS)
