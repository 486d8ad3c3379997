"""A browser's session without a browser: cookies, forms and their tokens, over a real API."""

import re
from dataclasses import dataclass

import httpx
import pytest

from tests.waiting import HANG


@dataclass
class Browser:
    http: httpx.Client

    def sign_in(self, secret):
        answer = self.http.post("login", data={"key": secret})
        assert answer.status_code == 303, answer.text
        return self

    @property
    def token(self):
        return re.search(r'name="csrf" value="([^"]*)"', self.http.get("files").text)[1]

    def get(self, path, **headers):
        return self.http.get(path, headers=headers)

    def post(self, path, **form):
        return self.http.post(path, data={"csrf": self.token, **form})


@pytest.fixture
def browser(url):
    with httpx.Client(base_url=url.removesuffix("/v1") + "/console/", timeout=HANG) as http:
        yield Browser(http)


@pytest.fixture
def at_annas(browser, anna):
    return browser.sign_in(anna.secret)
