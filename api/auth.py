"""Bearer keys: from the Authorization header to a tenant. Every route of a tenant's rows depends on it."""

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from api import errors
from api.context import Ctx
from db.tenant import keys

bearer = HTTPBearer(auto_error=False, description="A key as `onward keys create` prints it: sk-onward-…")


@dataclass(frozen=True)
class Caller:
    id: str
    name: str


def caller(
    request: Request, sent: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)], context: Ctx
) -> Caller:
    """The tenant whose key was sent; 401 for none, a wrong or a revoked one, which look alike. A transaction of its
    own: the request's body may be slow, and nothing is held while it is read."""
    challenge = {"www-authenticate": "Bearer"}
    if sent is None or not sent.credentials:
        message = "You didn't provide an API key. Send it in the header 'Authorization: Bearer YOUR_KEY'."
        raise errors.ApiError(401, message, headers=challenge)
    with context.sessions.begin() as session:
        tenant = keys.authenticate(session, sent.credentials)
        if tenant is None:
            raise errors.ApiError(401, "Incorrect API key provided.", code="invalid_api_key", headers=challenge)
        request.scope["tenant"] = tenant.id  # for the log's line
        return Caller(tenant.id, tenant.name)


Tenant = Annotated[Caller, Depends(caller)]
