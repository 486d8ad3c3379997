"""Templates and files of the console, and the headers that every answer of it has. Knows no resource."""

import hashlib
import json
import math
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from fastapi import Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.routing import APIRoute
from jinja2 import Environment, PackageLoader, StrictUndefined

from api import errors
from api.console import session
from db.telemetry.version import VERSION

STATIC: Final = Path(__file__).parent / "static"
KINDS: Final = {".js": "text/javascript", ".css": "text/css", ".LICENSE": "text/plain"}
# Nothing but this process's own files: no inline script or style, no other address, nothing framed.
POLICY: Final = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
)
HEADERS: Final = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
ASSETS: Final = {path.name: path for path in STATIC.iterdir() if path.suffix in KINDS}
TAG: Final = hashlib.sha256(b"".join(ASSETS[name].read_bytes() for name in sorted(ASSETS))).hexdigest()[:12]


def number(value: float | None, digits: int = 4) -> str:
    """As a person reads it: 1,234,567 or 0.5512; a dash where there is none."""
    if value is None or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:.{digits}g}"


def size(count: float) -> str:
    for unit in ("B", "KiB", "MiB", "GiB"):
        if count < 1024 or unit == "GiB":
            return f"{count:,.0f} {unit}" if unit == "B" else f"{count:,.1f} {unit}"
        count /= 1024
    raise AssertionError


def moment(epoch: float | None) -> str:
    """UTC, to the second."""
    return "–" if epoch is None else time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(epoch))


def span(seconds: float | None) -> str:
    """3 s, 4 min 10 s, 2 h 5 min."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


ENVIRONMENT: Final = Environment(loader=PackageLoader("api.console"), autoescape=True, undefined=StrictUndefined)
ENVIRONMENT.filters |= {
    "number": number, "size": size, "moment": moment, "span": span, "part": lambda s: quote(str(s), safe="")
}  # fmt: skip
ENVIRONMENT.globals |= {"version": VERSION, "tag": TAG}


def page(request: Request, template: str, status: int = 200, **about: Any) -> HTMLResponse:
    """The template in HTML; every value is escaped."""
    root = request.scope.get("root_path", "")
    given = {"root": root, "here": f"{root}/console", "csrf": session.token(request), "path": request.url.path}
    html = ENVIRONMENT.get_template(template).render(given | about)
    return HTMLResponse(html, status, HEADERS)


def moved(request: Request, where: str) -> RedirectResponse:
    """Go on at a page of the console, by GET."""
    return RedirectResponse(f"{session.path(request)}/{where}", 303, HEADERS)


class ConsoleRoute(APIRoute):
    """A route whose errors are pages: without a session, the page that asks for a key."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handled(request: Request) -> Response:
            try:
                return await handle(request)
            except Exception as error:  # the API's own answers, in another form
                answer = errors.answer(request, error)
            if answer.status_code == 401:
                return lost(request)
            said = json.loads(bytes(answer.body))["error"]["message"]
            failed = page(request, "error.html", answer.status_code, message=said)
            for name in ("retry-after",):
                if name in answer.headers:
                    failed.headers[name] = answer.headers[name]
            return failed

        return handled


def lost(request: Request) -> Response:
    """To the page that asks for a key; what htmx asked for is told to load it whole."""
    if request.headers.get("hx-request") == "true":
        return Response(None, 204, HEADERS | {"hx-redirect": f"{session.path(request)}/login"})
    back = moved(request, "login")
    session.end(back, request)
    return back
