"""No text of any settings class shows a secret, whatever class is added; nor does any line that a process prints."""

import ast
import importlib
import io
import json
import logging
import re
from pathlib import Path
from typing import get_args

import pytest
import structlog
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError
from pydantic_settings import BaseSettings
from sqlalchemy import make_url

from db import hidden
from db.hidden import SecretUrl, redacted
from db.session import normal_url
from db.settings import Settings, with_password
from db.telemetry import logs

ROOT = Path(__file__).parents[2]
OURS = ("api", "bench", "cli", "db", "worker")
PLANTED = "pl4nted"
SECRET = f"{PLANTED}/@:'\" w%6frd"  # what would break a URL, a line of JSON and a repr
URL = f"postgresql://someone:{PLANTED}%2Fword@here:5432/name?sslpassword={PLANTED}-too"
SECRETIVE = re.compile("password|passwd|secret|credential|api_key|access_key|_token$|_key$")


def classes():
    """Every settings class of ours, its module found by its text and imported."""
    sources = [path for part in OURS for path in (ROOT / part).rglob("*.py")]
    for path in sources:
        if re.search(r"^class \w+\(.*(Settings|Shared)\):", path.read_text(encoding="utf-8"), re.M):
            importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts))
    return sorted((c for c in below(BaseSettings) if c.__module__.split(".")[0] in OURS), key=lambda c: c.__qualname__)


def below(kind):
    return {c for sub in kind.__subclasses__() for c in (sub, *below(sub))}


CLASSES = classes()


def planted(kind, monkeypatch, **others):
    """The environment that sets every secret of `kind`, and what has no default. A field is a secret by its type, or by
    its name: one named like a secret that is none of the types shows up in the tests below."""
    monkeypatch.delenv("ONWARD_SECRETS_DIR", raising=False)
    names = []
    for name, field in kind.model_fields.items():
        if SecretStr in (field.annotation, *get_args(field.annotation)) or SECRETIVE.search(name):
            value = SECRET
        elif name.endswith(("url", "dsn", "endpoint")):
            value = URL
        elif field.is_required():
            value = "tiny"
        else:
            continue
        names.append(name)
        monkeypatch.setenv(f"ONWARD_{name}".upper(), value)
    for name, value in others.items():
        monkeypatch.setenv(f"ONWARD_{name}".upper(), value)
    return names


def test_the_classes_are_found_and_are_of_one_family():
    assert {c.__name__ for c in CLASSES} >= {"Settings", "WorkerSettings"}
    assert len({c.__module__ for c in CLASSES}) >= 3
    assert all(issubclass(c, Settings) for c in CLASSES), "extend db.settings.Settings: it hides what is secret"


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: f"{c.__module__}.{c.__name__}")
def test_no_settings_show_a_secret(kind, monkeypatch):
    names = planted(kind, monkeypatch)
    assert {"database_url", "redis_url", "database_password", "redis_password"} <= set(names)
    found = kind()
    texts = [
        repr(found), str(found), f"{found}", repr(vars(found)), repr(found.model_dump()), found.model_dump_json(),
        *(f(getattr(found, n)) for n in names for f in (str, repr, "{}".format, "%s".__mod__)),
    ]  # fmt: skip
    assert not [text for text in texts if PLANTED in text]
    assert make_url(normal_url(found.database_url)).password == f"{PLANTED}/word"  # and yet they are of use
    assert found.database_password.get_secret_value() == SECRET


@pytest.mark.parametrize("kind", CLASSES, ids=lambda c: f"{c.__module__}.{c.__name__}")
@pytest.mark.parametrize(
    "wrong",
    [
        {"log_level": "LOUD"},
        {"lease_seconds": PLANTED},
        {"database_url": f"postgresql://u:{PLANTED}/x@h/d"},
        {"redis_url": f"redis://:1/{PLANTED}@h:1"},
        {"redis_url": f"redis://[{PLANTED}"},
        {"redis_url": f"redis://:{PLANTED}\u2100@h:1"},
        {"redis_url": PLANTED},
    ],
    ids=str,
)
def test_no_error_of_settings_shows_a_secret(kind, monkeypatch, wrong):
    planted(kind, monkeypatch, **wrong)
    with pytest.raises(ValidationError) as caught:
        kind()
    assert PLANTED not in str(caught.value) + repr(caught.value)
    assert next(iter(wrong)) in str(caught.value) or "URL" in str(caught.value)


@pytest.mark.parametrize("kind", [c for c in CLASSES if any(f.is_required() for f in c.model_fields.values())])
def test_what_is_missing_is_told_without_the_rest(kind, monkeypatch):
    """Pydantic would print the whole input: the worker's settings did."""
    planted(kind, monkeypatch)
    (missing,) = (n for n, f in kind.model_fields.items() if f.is_required())
    monkeypatch.delenv(f"ONWARD_{missing}".upper())
    with pytest.raises(ValidationError, match=missing) as caught:
        kind()
    assert PLANTED not in str(caught.value)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1))
@example("")
@example("'")
@example('"')
def test_a_url_hides_any_password(password):
    url = with_password("redis://someone@here:1/0", PLANTED + password)
    shown = str(SecretUrl(url))
    assert PLANTED not in shown
    assert shown == f"redis://someone:{hidden.STARS}@here:1/0"
    try:
        raw = SecretUrl(f"redis://:{PLANTED}{password}@here:1/0")
    except ValueError:
        return
    assert PLANTED not in str(raw) + repr(raw)


def lines(monkeypatch, form, speak):
    """What a process prints while `speak` runs."""
    out = io.StringIO()
    monkeypatch.setattr("sys.stderr", out)
    kept = logging.getLogger().handlers[:]
    structlog.reset_defaults()
    try:
        logs.configure("api", form, "DEBUG")
        speak()
    finally:
        logging.getLogger().handlers[:] = kept
        structlog.reset_defaults()
    return out.getvalue()


@pytest.mark.parametrize("form", ["json", "console"])
def test_no_line_shows_a_secret_that_is_known(monkeypatch, form):
    """Whoever speaks, and however the secret came into its message: a library was handed it plain."""
    planted(Settings, monkeypatch)
    found = Settings()
    plain = found.database_password.get_secret_value()
    url = "".join(found.database_url)
    key = "sk-onward-" + PLANTED + "x" * 36

    def speak():
        log = structlog.get_logger("api.test")
        log.info("ours", plain=plain, url=url, key=key, nested={"in": [plain, url, key]}, settings=found)
        logging.getLogger("celery").error("theirs %s %r %s %s", plain, plain, url, key)
        try:
            raise RuntimeError(f"{plain} {plain!r} {url} {key} " + json.dumps([plain, url]))
        except RuntimeError:
            log.exception("died")
            logging.getLogger("sqlalchemy").exception("died")

    said = lines(monkeypatch, form, speak)
    assert said.count("died") == 2
    assert "RuntimeError" in said
    assert PLANTED not in said
    assert "someone" in said  # no more is hidden than must be


def test_a_process_that_dies_of_what_nobody_foresaw_shows_none(monkeypatch, capsys):
    import sys
    import threading

    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setattr(threading, "excepthook", threading.excepthook)
    hidden.remember(SecretStr(SECRET))

    def speak():
        try:
            raise RuntimeError(SECRET)
        except RuntimeError as error:
            sys.excepthook(type(error), error, error.__traceback__)

        def die():
            raise RuntimeError(SECRET)

        thread = threading.Thread(target=die)
        thread.start()
        thread.join()

    said = lines(monkeypatch, "json", speak)
    assert said.count("RuntimeError: " + hidden.STARS) == 2
    assert PLANTED not in said


def test_a_short_password_hides_no_words_but_is_hidden_in_urls():
    hidden.remember(SecretStr("onward"))
    assert redacted("onward at redis://:onward@here/0") == f"onward at redis://:{hidden.STARS}@here/0"


def test_what_holds_a_url_or_a_password_leaves_it_out_of_its_repr():
    """Dataclasses print their fields."""
    secretive = re.compile("password|secret|database_url|redis_url|api_key")
    shown = []
    for path in sorted(p for part in OURS for p in (ROOT / part).rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ClassDef) and any("dataclass" in ast.unparse(d) for d in node.decorator_list):
                fields = [
                    f for f in node.body if isinstance(f, ast.AnnAssign) and secretive.search(ast.unparse(f.target))
                ]
                hides = "repr=False" in "".join(ast.unparse(d) for d in node.decorator_list)
                shown += [(str(path.relative_to(ROOT)), ast.unparse(f)) for f in fields
                          if not hides and "repr=False" not in ast.unparse(f)]  # fmt: skip
    assert not shown
