"""`onward chat` against a real API whose worker is a wire of the test; keys and limits for it."""

from typer.testing import CliRunner

from cli import chat
from cli.client import connect
from cli.main import app
from tests.api.chat.conftest import Fleet, chats, fleet, url, worker
from tests.api.chat.wire import WORDS, chunk
from tests.cli.conftest import complaint, read

__all__ = ["Fleet", "chats", "fleet", "url", "worker"]
TEXT = "".join(WORDS)


def test_a_question_is_answered_as_it_comes(onward, worker):
    assert onward("chat", "tiny", "yes or no?").stdout == f"{TEXT}\n"
    assert worker.seen[0].body["messages"] == [{"role": "user", "content": "yes or no?"}]
    assert worker.seen[0].body["stream"] is True


def test_what_is_told_before_and_how_it_is_drawn(onward, worker):
    said = read(
        onward("chat", "tiny", "hi", "--system", "be brief", "--max-tokens", "7", "--temperature", "0", "--seed", "3",
               "--json")
    )  # fmt: skip
    assert said == {"model": "tiny", "content": TEXT}
    body = worker.seen[0].body
    assert body["messages"][0] == {"role": "system", "content": "be brief"}
    assert (body["max_completion_tokens"], body["temperature"], body["seed"]) == (7, 0, 3)


def test_text_on_standard_input_is_one_question(shell, url, anna, worker, monkeypatch):
    monkeypatch.setenv("ONWARD_BASE_URL", url)
    monkeypatch.setenv("ONWARD_API_KEY", anna.secret)
    found = CliRunner().invoke(app, ["chat", "tiny"], input="what\nnow?\n")
    assert (found.exit_code, found.stdout) == (0, f"{TEXT}\n")
    assert worker.seen[0].body["messages"][0]["content"] == "what\nnow?"
    assert CliRunner().invoke(app, ["chat", "tiny"], input="").exit_code == 1


def test_a_conversation_goes_on_and_begins_anew(onward, worker, monkeypatch):
    lines = iter(["one", "", "two", "/new", "three", "/exit"])
    monkeypatch.setattr("builtins.input", lambda _: next(lines))
    chat._converse(chat.Talk(connect(), "tiny", None, {}))
    said = [[m["content"] for m in seen.body["messages"]] for seen in worker.seen]
    assert said == [["one"], ["one", TEXT, "two"], ["three"]]


def test_what_would_steer_a_terminal_is_shown_as_what_it_is(onward, worker):
    def act(handler, seen):
        handler.begin()
        handler.event(chunk(seen, "a\x1b[2Jb\tc\nd"))
        handler.done()

    worker.act = act
    assert onward("chat", "tiny", "hi").stdout == "a\N{REPLACEMENT CHARACTER}[2Jb\tc\nd\n"


def test_an_unknown_name_is_one_line(onward, worker):
    assert "'nobody' does not exist" in complaint(onward("chat", "nobody", "hi", ok=False))


def test_scopes_and_quotas(shell):
    shell("tenants", "create", "gil", "--serve-quota", "1000", "--json")
    made = read(shell("tenants", "set", "gil", "--daily-serve-tokens", "50", "--json"))
    assert (made["serve_quota"], made["daily_serve_tokens"], made["served_tokens"]) == (1000, 50, 0)
    assert read(shell("tenants", "set", "gil", "--unlimited", "serve-quota", "--json"))["serve_quota"] is None
    key = read(shell("keys", "create", "gil", "--scopes", "serve,train", "--json"))
    assert key["scopes"] == ["serve", "train"]
    assert "serve,train" in shell("keys", "list", "gil").stdout
    assert "no scope" in complaint(shell("keys", "create", "gil", "--scopes", "root", ok=False))
    assert "two ways" in complaint(shell("keys", "create", "gil", "--scopes", "serve", "--scope", "read", ok=False))
