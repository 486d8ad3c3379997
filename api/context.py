"""What a request may reach: settings, sessions, token counts and who counts them. Knows no resource."""

import asyncio
import threading
from collections import Counter
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated
from weakref import WeakValueDictionary

from anyio import CapacityLimiter
from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from api.flights import Flights
from api.last_use import LastUse
from api.memory import Memory
from api.rates import Rates
from api.settings import Settings
from api.token_counts import TokenCounts
from db import security
from db.queue import Ring
from db.store.opening import Stores


@dataclass(frozen=True)
class Context:
    """Made once by `create_app`. `transaction` is committed before the answer is sent: routes open it in their own
    body, since FastAPI may leave a dependency only after the response. `sessions` are in nobody's name."""

    settings: Settings
    sessions: sessionmaker[Session]
    tokens: TokenCounts
    flights: Flights
    rates: Rates
    ring: Ring
    stores: Stores | None = None  # of files' bytes; None: the database alone
    last_use: LastUse = field(default_factory=LastUse)
    memory: Memory = field(default_factory=lambda: Memory(0.0))
    draining: threading.Event = field(default_factory=threading.Event)  # set: this process ends soon, go elsewhere
    ending: threading.Event = field(default_factory=threading.Event)  # set: it ends now, nothing is waited for
    under_way: Counter[str] = field(default_factory=Counter)  # requests of each tenant; of the event loop's thread
    probing: CapacityLimiter = field(default_factory=lambda: CapacityLimiter(4))  # threads of the readiness page
    _one: WeakValueDictionary[str, asyncio.Lock] = field(default_factory=WeakValueDictionary)

    def one_at_a_time(self, tenant: str) -> asyncio.Lock:
        """For what the database does one by one for a tenant: who waits here holds no thread and no connection."""
        return self._one.setdefault(tenant, asyncio.Lock())

    def transaction(self, tenant: str) -> AbstractContextManager[Session]:
        """One transaction on the rows of the tenant with this id."""
        return security.transaction(self.sessions, tenant)


async def context(request: Request) -> Context:  # a plain function would be called on a thread of its own
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(context)]
