"""Settings from variables and from files, and URLs that get their password from elsewhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from sqlalchemy import make_url

from db.queue import broker_url
from db.session import normal_url
from db.settings import Settings, with_password

URL = "postgresql://onward@db:5432/onward"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("ONWARD_SECRETS_DIR", str(tmp_path))
    for name in ("DATABASE_URL", "REDIS_URL", "DATABASE_PASSWORD", "REDIS_PASSWORD"):
        monkeypatch.delenv(f"ONWARD_{name}", raising=False)
    return tmp_path


def test_a_file_sets_a_field_and_a_variable_wins(folder, monkeypatch):
    (folder / "onward_database_url").write_text("postgresql://a@b/c\n")
    (folder / "onward_redis_url").write_text("redis://there:6379/2")
    assert Settings().database_url == "postgresql://a@b/c"
    monkeypatch.setenv("ONWARD_DATABASE_URL", URL)
    assert Settings().database_url == URL
    assert Settings().redis_url == "redis://there:6379/2"


def test_the_password_goes_into_a_public_url_and_nowhere_else(folder, monkeypatch):
    monkeypatch.setenv("ONWARD_DATABASE_URL", URL)
    (folder / "onward_database_password").write_text("s3cret/@:word\n")
    (folder / "onward_redis_password").write_text("other")
    found = Settings()
    assert make_url(normal_url(found.database_url)).password == "s3cret/@:word"
    assert found.redis_url == "redis://:other@127.0.0.1:6379/0"
    assert "s3cret" not in str(found.database_password)
    assert broker_url(with_password("unix:///run/v.sock?db=1", "p")).startswith("redis+socket://:p@/run/v.sock")


def test_a_folder_that_is_not_there_is_said(folder, monkeypatch):
    monkeypatch.setenv("ONWARD_SECRETS_DIR", str(folder / "gone"))
    with pytest.warns(UserWarning, match="gone"):
        Settings()


def test_a_wrong_level_is_refused(monkeypatch):
    monkeypatch.setenv("ONWARD_LOG_LEVEL", "LOUD")
    with pytest.raises(ValidationError, match="log_level"):
        Settings()


@given(st.text(st.characters(codec="utf-8", exclude_characters="\r\n"), min_size=1))
def test_any_password_comes_back(password):
    assert make_url(normal_url(with_password(URL, password))).password == password


def test_a_url_with_a_password_keeps_it():
    assert with_password("redis://:mine@h/0", "other") == "redis://:mine@h/0"


def test_a_secret_of_chats_is_a_file_without_its_newline_and_an_empty_one_is_none(tmp_path, monkeypatch):
    monkeypatch.delenv("ONWARD_SERVE_SECRET", raising=False)
    monkeypatch.setenv("ONWARD_SECRETS_DIR", str(tmp_path))
    file = tmp_path / "onward_serve_secret"
    assert Settings().serve_secret is None
    for said, read in (("", None), ("\n", None), ("0123456789abcdef\n", "0123456789abcdef")):
        file.write_text(said)
        found = Settings().serve_secret
        assert (found and found.get_secret_value()) == read
    file.write_text("too short")
    with pytest.raises(ValidationError, match="16 characters at least") as refused:
        Settings()
    assert "too short" not in str(refused.value)
