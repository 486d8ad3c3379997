"""The console in Chromium, where one is installed: what every test of its pages needs."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, Page, sync_playwright

from tests.waiting import HANG

FOUND = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
NEEDED = pytest.mark.skipif(FOUND is None, reason="no Chromium is installed: the console's pages are not looked at")
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip


@contextmanager
def launched() -> Iterator[Browser]:
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=FOUND, args=[*QUIET, *alone])
        yield browser
        browser.close()


@contextmanager
def signed_in(browser: Browser, url: str, secret: str) -> Iterator[tuple[Page, str, list[str]]]:
    """A page at this key's console under `url`, the console's own address, and what was wrong so far."""
    context = browser.new_context(viewport={"width": 1200, "height": 900})
    page, wrong = context.new_page(), list[str]()
    page.set_default_timeout(HANG * 1000)
    page.on("console", lambda said: wrong.append(said.text) if said.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    page.on("dialog", lambda dialog: (wrong.append(dialog.message), dialog.dismiss())[1])
    root = f"{url}/console/"
    page.goto(root)
    page.get_by_label("Key").fill(secret)
    page.get_by_role("button", name="Sign in").click()
    page.wait_for_url("**/console/jobs")
    yield page, root, wrong
    context.close()


def clean(page: Page, wrong: list[str]) -> None:
    """Nothing was forbidden or failed, and axe has nothing to say."""
    assert wrong == []
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()
