"""The pages in Chromium: nothing that the policy forbids or axe finds, curves that grow, text that stays text."""

import os
import shutil

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import sync_playwright

from db import events
from db.tables import Job
from tests.api.examples import COMPLETION, choices, submit, upload
from tests.waiting import HANG

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium is installed: the console's pages are not looked at"
)
QUIET = [
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
PLACES = ["jobs", "files", "account", "compare"]


@pytest.fixture(scope="module")
def chromium():
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *alone])
        yield browser
        browser.close()


@pytest.fixture
def page(chromium, url, anna):
    """A page at anna's console, and what was wrong on it so far."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    opened = context.new_page()
    opened.set_default_timeout(HANG * 1000)
    opened.wrong = []
    opened.on("console", lambda said: opened.wrong.append(said.text) if said.type in ("error", "warning") else None)
    opened.on("pageerror", lambda error: opened.wrong.append(str(error)))
    opened.on("dialog", lambda dialog: (opened.wrong.append(dialog.message), dialog.dismiss()))
    opened.root = url.removesuffix("/v1") + "/console/"
    opened.goto(opened.root)
    opened.get_by_label("Key").fill(anna.secret)
    opened.get_by_role("button", name="Sign in").click()
    opened.wait_for_url("**/console/jobs")
    yield opened
    context.close()


def clean(page):
    """Nothing was forbidden or failed, and axe has nothing to say."""
    assert page.wrong == []
    found = Axe().run(page)
    assert found.violations_count == 0, found.generate_report()


@pytest.mark.parametrize("place", PLACES)
def test_pages_are_clean(page, anna, place):
    submit(anna, upload(anna, *choices(8)))
    page.goto(page.root + place)
    clean(page)


def test_curves_grow_while_a_job_is_looked_at(page, anna, factory):
    job = submit(anna, upload(anna, *choices(8)), suffix="curve")

    def told(step, loss):
        with factory.begin() as session:
            events.metrics(session, session.get(Job, job.id), "measured", {"step": step, "train_loss": loss})

    told(1, 0.9)
    page.goto(f"{page.root}jobs/{job.id}")
    page.wait_for_selector(".u-legend")
    assert page.locator(".plot canvas").count() == 1
    with page.expect_response(
        lambda answer: answer.url.endswith("/points") and len(answer.json()["curves"]["train"]) == 2
    ):
        told(2, 0.5)
    page.get_by_label("Over").select_option("time")
    page.get_by_label("Smooth").select_option("0.8")
    page.wait_for_selector(".u-legend")
    clean(page)


def test_what_waits_is_followed_without_loading_the_page_again(page, anna):
    job = submit(anna, upload(anna, *choices(8)))
    page.goto(f"{page.root}jobs/{job.id}")
    page.wait_for_selector("text=queued")
    anna.openai.fine_tuning.jobs.cancel(job.id)
    page.wait_for_selector(".state.cancelled")
    assert page.get_by_role("button", name="Cancel").count() == 0
    clean(page)


def test_text_of_tenants_stays_text(page, anna):
    file = upload(anna, *[COMPLETION | {"prompt": "<img src=x onerror=alert(1)><script>alert(2)</script>"}] * 2)
    page.goto(f"{page.root}files/{file}?acts=answer")
    assert page.locator(".rows img, .rows script").count() == 0
    clean(page)


def test_jobs_are_marked_and_compared(page, anna, factory):
    made = upload(anna, *choices(8))
    for rate in (1e-3, 2e-3):
        job = submit(anna, made, {"learning_rate": rate}, suffix=f"r{int(rate * 1000)}")
        with factory.begin() as session:
            for step in range(3):
                data = {"step": step, "train_loss": 1.0 - step * rate * 100}
                events.metrics(session, session.get(Job, job.id), "measured", data)
    page.goto(f"{page.root}jobs")
    for box in page.get_by_role("checkbox").all()[:2]:
        box.check()
    page.get_by_role("button", name="Compare").click()
    page.wait_for_selector(".u-legend")
    assert page.locator("text=method.learning_rate").count() == 1
    clean(page)
