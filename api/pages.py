"""What a browser finds: what this is, and the description of the API as a page, from files of this process alone."""

from html import escape
from importlib.util import find_spec
from pathlib import Path
from typing import Final

from fastapi import APIRouter, Request
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.exceptions import HTTPException

from db.telemetry.version import VERSION

router = APIRouter(include_in_schema=False)
ASSETS: Final = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "favicon.png": "image/png",
}
# The page starts with a script of its own; nothing may be asked of another address.
POLICY: Final = (
    "default-src 'none'; connect-src 'self'; img-src 'self' data:; script-src 'self' 'unsafe-inline'; "
    "style-src 'self' 'unsafe-inline'; frame-ancestors 'none'"
)
ABOUT: Final = "A self-hosted fine-tuning service. OpenAI's clients work with this base_url and a key of its operator."
PAGE: Final = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Onward</title></head>
<body style="font-family: sans-serif; max-width: 40em; margin: 4em auto"><h1>Onward {version}</h1><p>{about}</p>
<p>base_url: <code>{base_url}</code></p><p><a href="{root}/docs">The API, described</a></p>
<p><a href="{root}/console">The console</a></p></body></html>"""


@router.get("/")
async def index(request: Request) -> Response:
    """What answers here and where its API is, to whoever asks: no key, no tenant, no model."""
    root = request.scope.get("root_path", "")
    base_url = f"{str(request.base_url).rstrip('/')}/v1"
    if "text/html" in request.headers.get("accept", ""):
        page = PAGE.format(version=escape(VERSION), about=ABOUT, base_url=escape(base_url), root=escape(root))
        return HTMLResponse(page, headers={"content-security-policy": POLICY})
    said = {"name": "Onward", "version": VERSION, "about": ABOUT, "base_url": base_url}
    return JSONResponse(said | {"docs": f"{root}/docs", "openapi": f"{root}/openapi.json", "api": f"{root}/v1"})


@router.get("/docs")
async def docs(request: Request) -> HTMLResponse:
    root = request.scope.get("root_path", "")
    page = get_swagger_ui_html(
        openapi_url=f"{root}/openapi.json",
        title="Onward: the API",
        swagger_js_url=f"{root}/docs/swagger-ui-bundle.js",
        swagger_css_url=f"{root}/docs/swagger-ui.css",
        swagger_favicon_url=f"{root}/docs/favicon.png",
    )
    page.headers["content-security-policy"] = POLICY
    return page


@router.get("/docs/{asset}")
async def asset(asset: str) -> FileResponse:
    if asset not in ASSETS:
        raise HTTPException(404)
    headers = {"cache-control": "public, max-age=86400"}
    return FileResponse(folder() / asset, media_type=ASSETS[asset], headers=headers)


def folder() -> Path:
    """Where the package with the page's files is; it is not imported."""
    found = find_spec("fastapi_offline")
    assert found is not None, "a dependency of onward"
    assert found.origin is not None
    return Path(found.origin).parent / "static"
