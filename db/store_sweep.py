"""What goes from the stores: objects of deleted files, and orphans that no row names. Knows rows, no client.

Each call is short or outside of a transaction: a store that is away delays, and holds nothing.
"""

from datetime import timedelta

import structlog
from sqlalchemy import delete, func, literal, or_, select, tuple_, update
from sqlalchemy.orm import Session, sessionmaker

from db import security
from db.store import seam
from db.store.opening import Stores
from db.store.seam import StoreAway
from db.tables import Doomed, File, Installation

log = structlog.get_logger("db.store_sweep")
BATCH = 200  # objects of one turn
AGAIN = timedelta(minutes=1)  # after which a turn that came to nothing is another's
EVERY = timedelta(hours=6)  # a store is looked through for orphans


def doomed(factory: sessionmaker[Session], stores: Stores) -> int:
    """Deletes a batch of what is due, and says how many. A store that is away keeps its own for the next turn."""
    with security.forgetting(factory) as session:
        due = select(Doomed.store, Doomed.file_id).where(Doomed.due_at <= func.now()).order_by(Doomed.due_at)
        mine = tuple_(Doomed.store, Doomed.file_id).in_(due.limit(BATCH).with_for_update(skip_locked=True))
        taken = update(Doomed).where(mine).values(due_at=func.now() + literal(AGAIN))
        found = session.execute(taken.returning(Doomed.store, Doomed.tenant_id, Doomed.file_id)).all()
    gone, away = [], set()
    for store, tenant, file_id in found:
        if store in away:
            continue
        try:
            stores.at(store).delete(seam.key(tenant, file_id))
        except StoreAway as error:
            away.add(store)
            log.warning("objects wait to be deleted", store=store, error=str(error))
        else:
            gone.append((store, file_id))
    if gone:
        with security.forgetting(factory) as session:
            session.execute(delete(Doomed).where(tuple_(Doomed.store, Doomed.file_id).in_(gone)))
    return len(gone)


def orphans(factory: sessionmaker[Session], stores: Stores, hours: float) -> int:
    """Deletes from the store that new files go to what no file names and what is older than `hours`: an upload that was
    rolled back, or whose process was killed. Looks once in `EVERY`, whoever asks; how many went. Raises StoreAway."""
    if stores.writes is None or (installation := _our_turn(factory)) is None:
        return 0
    store, count, batch = stores.at(stores.writes), 0, list[tuple[str, str]]()
    seam.mark(store, installation)
    for key in store.keys(hours * 3600):
        ours = seam.OURS.fullmatch(key)
        if ours is not None:
            batch.append((key, ours[1]))
        if len(batch) == BATCH:
            count += _unnamed(factory, stores, batch)
            batch = []
    return count + _unnamed(factory, stores, batch)


def _our_turn(factory: sessionmaker[Session]) -> str | None:
    old = or_(Installation.swept_at.is_(None), Installation.swept_at < func.now() - literal(EVERY))
    with security.forgetting(factory) as session:
        return session.scalar(update(Installation).where(old).values(swept_at=func.now()).returning(Installation.id))


def _unnamed(factory: sessionmaker[Session], stores: Stores, batch: list[tuple[str, str]]) -> int:
    """A temporary object of a folder is one of a writer that was killed, whether its file is named or not."""
    with security.forgetting(factory) as session:
        named = set(session.scalars(select(File.id).where(File.id.in_([file_id for _, file_id in batch]))))
    gone = [key for key, file_id in batch if file_id not in named or "/." in key]
    assert stores.writes is not None
    for key in gone:
        stores.at(stores.writes).delete(key)
        log.info("orphan deleted", store=stores.writes, key=key)
    return len(gone)
