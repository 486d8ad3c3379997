"""What a request may reach: settings, sessions and the memory of token counts. Knows no resource."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.orm import Session, sessionmaker

from api.settings import Settings
from api.tokens import TokenCounts
from db.queue import Ring


@dataclass(frozen=True)
class Context:
    """Made once by `create_app`. `sessions.begin()` is one transaction, committed before the answer is sent: routes
    open it in their own body, since FastAPI may leave a dependency only after the response."""

    settings: Settings
    sessions: sessionmaker[Session]
    tokens: TokenCounts
    ring: Ring


def context(request: Request) -> Context:
    found: Context = request.app.state.context
    return found


Ctx = Annotated[Context, Depends(context)]
