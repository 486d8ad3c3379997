"""Files over the API with their bytes in a folder or a bucket: the same answers, and 503 where the store is away."""

import pytest
from openai import InternalServerError, NotFoundError
from sqlalchemy import func, select

from db import store_sweep
from db.ids import new_id
from db.store.opening import Stores, carrying
from db.tables import Doomed, File
from tests.api.conftest import client, serving
from tests.api.examples import CHAT, jsonl, submit, upload
from tests.stores import settings_of


@pytest.fixture(params=["folder", "bucket"])
def stored(request, settings, tmp_path):
    """Settings with a new store."""
    return settings.model_copy(update=settings_of(request.param, tmp_path / "store", request, new_id("bucket-")))


def test_a_file_goes_to_the_store_and_comes_back_and_goes(stored, factory, as_worker):
    with serving(stored) as url:
        who = client(factory, url, new_id("who-"))
        data = jsonl(CHAT) * 3
        made = who.openai.files.create(file=("train.jsonl", data), purpose="fine-tune")
        assert who.openai.files.content(made.id).read() == data
        assert submit(who, made.id).training_file == made.id, "its tokens were counted"
        with factory.begin() as session:
            assert session.get_one(File, made.id).store == stored.file_store
        assert "store" not in str(who.openai.files.retrieve(made.id).model_dump())
        other = who.openai.files.create(file=("other.jsonl", data), purpose="fine-tune").id
        assert who.openai.files.delete(other).deleted
        with pytest.raises(NotFoundError):
            who.openai.files.content(other)
    stores = Stores(stored)
    assert store_sweep.doomed(carrying(as_worker, stores), stores) == 1
    with factory.begin() as session:
        assert session.scalar(select(func.count()).select_from(Doomed)) == 0


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_a_store_that_is_away_is_no_fault_of_the_tenants_and_says_when_to_come_back(stored, factory, tmp_path):
    with serving(stored) as url:
        who = client(factory, url, new_id("who-"))
        made = upload(who, CHAT)
        (tmp_path / "store").rename(tmp_path / "unmounted")
        for call in (lambda: upload(who, CHAT), lambda: who.openai.files.content(made), lambda: submit(who, made)):
            with pytest.raises(InternalServerError) as caught:
                call()
            assert (caught.value.status_code, caught.value.code) == (503, "unavailable")
            assert int(caught.value.response.headers["retry-after"]) >= 1
            assert str(tmp_path) not in caught.value.response.text
        assert [file.id for file in who.openai.files.list()] == [made], "nothing was changed"
        assert who.openai.files.delete(made).deleted, "which needs no store"
        (tmp_path / "unmounted").rename(tmp_path / "store")
        assert upload(who, CHAT)


@pytest.mark.parametrize("stored", ["folder"], indirect=True)
def test_a_file_that_was_changed_in_its_store_is_not_handed_out_whole(stored, factory, tmp_path):
    with serving(stored) as url:
        who = client(factory, url, new_id("who-"))
        made = upload(who, CHAT)
        path = tmp_path / "store" / who.id / made
        path.write_bytes(bytes(path.stat().st_size))
        with pytest.raises(InternalServerError) as caught:
            who.openai.files.content(made)
        assert caught.value.code == "file_lost"
        path.unlink()
        with pytest.raises(InternalServerError) as caught:
            who.openai.files.content(made)
        assert caught.value.code == "file_lost"
