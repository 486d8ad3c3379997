"""What a browser, or a client with the wrong base_url, finds: nothing from elsewhere, and the way to the API."""

import re

import httpx
import openai
import pytest

from db.telemetry.version import VERSION


@pytest.fixture
def root(url):
    return url.removesuffix("/v1")


def test_the_root_says_what_this_is_and_nothing_of_its_tenants(root, url, anna, settings):
    said = httpx.get(root).json()
    assert (said["name"], said["version"], said["base_url"]) == ("Onward", VERSION, url)
    assert httpx.get(root + said["docs"]).status_code == 200
    assert httpx.get(root + said["openapi"]).json()["info"]["title"] == "Onward"
    page = httpx.get(root, headers={"accept": "text/html,*/*"})
    assert page.headers["content-type"].startswith("text/html")
    assert url in page.text
    for text in (str(said), page.text):
        assert anna.id not in text
        assert not any(name in text for name in settings.models)


def test_the_description_is_a_page_without_the_internet(root):
    page = httpx.get(f"{root}/docs")
    named = re.findall(r'(?:src|href)="([^"]+)"', page.text)
    assert len(named) == 3
    assert not re.findall(r"https?://", page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    for path in named:
        found = httpx.get(root + path)
        assert (found.status_code, len(found.content) > 1000) == (200, True), path
    assert "SwaggerUIBundle" in httpx.get(f"{root}/docs/swagger-ui-bundle.js").text
    for path in ("/docs/redoc.standalone.js", "/docs/..%2F__init__.py", "/docs/../pages.py", "/redoc"):
        assert httpx.get(root + path).status_code == 404


@pytest.mark.parametrize(
    "method, path",
    [
        ("GET", "/models"),
        ("POST", "/files"),
        ("POST", "/fine_tuning/jobs"),
        ("GET", "/fine_tuning/jobs/ftjob-1/events"),
    ],
)
def test_a_base_url_without_v1_is_told_so(root, url, method, path):
    for wrong in (path, f"/v1/v1{path}"):
        answer = httpx.request(method, root + wrong)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"], error["type"]) == (404, "unknown_url", "invalid_request_error")
        assert error["message"].endswith(f"set the client's base_url to {url}")


def test_the_client_shows_it(root, anna):
    with pytest.raises(openai.NotFoundError, match="It is under /v1"):
        openai.OpenAI(base_url=root, api_key=anna.secret).models.list()


def test_what_is_nowhere_is_not_said_to_be_under_v1(root):
    for path in ("/nothing", "/v1/nothing", "/v1/v1/nothing", "/consoles"):
        said = httpx.get(root + path).json()["error"]["message"]
        assert said == f"Unknown request URL: GET {path}."
