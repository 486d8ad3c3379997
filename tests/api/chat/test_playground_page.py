"""The playground in Chromium: answers come as they are said, as text, side by side, and can be stopped."""

import pytest

from tests.api.chat.wire import chunk
from tests.api.conftest import MODEL
from tests.api.console.test_browser import chromium, clean, page, pytestmark

__all__ = ["chromium", "page", "pytestmark"]  # fixtures, and that there is a Chromium

MARKUP = "<img src=x onerror=alert(1)>"


@pytest.fixture
def playground(page):
    page.goto(f"{page.root}playground")
    page.locator("select").first.select_option(MODEL)
    page.get_by_label("Message", exact=True).fill("yes or no?")
    return page


def ask(page):
    page.get_by_role("button", name="Ask").click()


def test_what_models_say_is_text_side_by_side(playground, worker):
    def speaks(handler, seen):
        handler.begin()
        for word in ("one ", MARKUP):
            handler.event(chunk(seen, word))
        handler.done()

    worker.act = speaks
    playground.locator("select").nth(1).select_option(MODEL)
    ask(playground)
    for column in ("Model 1", "Model 2"):
        section = playground.get_by_role("region", name=column)
        section.get_by_text(f"one {MARKUP}").wait_for()
        section.get_by_text(f"{MODEL}: first words after").wait_for()
    assert playground.get_by_role("region", name="Model 3").locator(".how").inner_text() == ""
    assert playground.get_by_role("button", name="Ask").is_enabled()
    clean(playground)


def test_an_answer_is_stopped(playground, worker):
    def endless(handler, seen):
        handler.begin()
        handler.until_cut(chunk(seen, "on "))

    worker.act = endless
    ask(playground)
    playground.get_by_text("on on on").wait_for()
    playground.get_by_role("button", name="Stop").click()
    assert worker.cut.wait(60), "the worker was told"
    playground.get_by_role("button", name="Ask").click(trial=True)
    assert playground.wrong == []


def test_what_is_cut_or_refused_is_said(playground, worker):
    worker.act = lambda handler, seen: handler.refuse(400, "invalid_value", "not that")  # noqa: ARG005
    ask(playground)
    playground.get_by_text("not that").wait_for()

    def dies(handler, seen):
        handler.begin()
        handler.event(chunk(seen, "half of it"))
        handler.die()

    worker.act = dies
    ask(playground)
    playground.locator(".answer.wrong", has_text="half of it").wait_for()
