"""What a request may reach: settings, sessions and the memory of token counts. Knows no resource."""

import threading
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from api.last_use import LastUse
from api.settings import Settings
from api.token_counts import TokenCounts
from db import security
from db.queue import Ring


@dataclass(frozen=True)
class Context:
    """Made once by `create_app`. `transaction` is committed before the answer is sent: routes open it in their own
    body, since FastAPI may leave a dependency only after the response. `sessions` are in nobody's name."""

    settings: Settings
    sessions: sessionmaker[Session]
    tokens: TokenCounts
    ring: Ring
    last_use: LastUse = field(default_factory=LastUse)
    draining: threading.Event = field(default_factory=threading.Event)  # set: this process ends soon, go elsewhere

    def transaction(self, tenant: str) -> AbstractContextManager[Session]:
        """One transaction on the rows of the tenant with this id."""
        return security.transaction(self.sessions, tenant)


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(context)]
