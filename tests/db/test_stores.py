"""Bytes of files in a folder and a bucket as in the database: whole, apart, gone when deleted, swept when orphaned."""

import hashlib
import os
import shutil
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from pydantic import ValidationError
from sqlalchemy import func, select, update

from db import deposits, files, security, store_sweep
from db.ids import new_id
from db.settings import Settings
from db.store import seam
from db.store.opening import Stores, carrying
from db.store.seam import ObjectLost, StoreAway
from db.tables import Doomed, File, FileChunk, Installation
from db.tenant import jobs
from db.worker import leases
from tests.db.inserted import a_claim, a_job, a_tenant
from tests.stores import KINDS, s3_serving, settings_of

MIB = 2**20
BIG = bytes(range(256)) * (9 * MIB // 256) + b"tail"
ABOUT = {"filename": "../../f", "purpose": "fine-tune", "format": "chat", "rows": 3}


class Place:
    """A store and the sessions of API and worker that carry it."""

    def __init__(self, kind, settings, as_api, as_worker):
        self.kind, self.settings, self.stores = kind, settings, Stores(settings)
        self.api, self.worker = carrying(as_api, self.stores), carrying(as_worker, self.stores)

    @property
    def store(self):
        return self.stores.at(self.settings.file_store)

    def begin(self, tenant):
        return security.transaction(self.api, tenant)

    @contextmanager
    def uploading(self, tenant, *pieces):
        with (
            deposits.deposited(tenant, self.stores, partial(self.begin, tenant), pieces) as chunks,
            self.begin(tenant) as session,
        ):
            yield files.create(tenant, session, **ABOUT, chunks=chunks)

    def upload(self, tenant, *pieces):
        with self.uploading(tenant, *pieces) as made:
            return made

    def content(self, tenant, file_id):
        pieces, size = [], 0
        while (piece := files.piece(tenant, partial(self.begin, tenant), file_id, size)) is not None:
            pieces.append(piece)
            size += len(piece)
        return pieces

    def keys(self):
        return sorted(key for key in self.store.keys(-HOUR) if key != seam.MARK)

    def delete(self, tenant, file_id):
        with self.begin(tenant) as session:
            return files.delete(tenant, session, file_id)


HOUR = 3600.0
ELSEWHERE = [kind for kind in KINDS if kind != "database"]


@pytest.fixture
def place(request, tmp_path, as_api, as_worker):
    kind = request.param
    told = settings_of(kind, tmp_path / "store", request, new_id("bucket-"))
    return Place(kind, Settings(**told), as_api, as_worker)


everywhere = pytest.mark.parametrize("place", KINDS, indirect=True)
elsewhere = pytest.mark.parametrize("place", ELSEWHERE, indirect=True)
folder_only = pytest.mark.parametrize("place", ["folder"], indirect=True)


@pytest.fixture
def tenant(factory):
    with factory.begin() as session:
        return a_tenant(session)


@pytest.fixture
def other(factory):
    with factory.begin() as session:
        return a_tenant(session)


def waiting(factory, file_id):
    with factory.begin() as session:
        return session.scalar(select(func.count()).where(Doomed.file_id == file_id))


def soon(factory):
    """What waits for its next try waits no more."""
    with factory.begin() as session:
        session.execute(update(Doomed).values(due_at=func.now()))


def swept_long_ago(factory):
    with factory.begin() as session:
        session.execute(update(Installation).values(swept_at=None))


@everywhere
def test_bytes_come_back_as_they_went_in(place, tenant, factory):
    pieces = [BIG[:10], b"", BIG[10 : 5 * MIB], BIG[5 * MIB :]]
    file = place.upload(tenant, *pieces)
    assert (file.bytes, file.sha256) == (len(BIG), hashlib.sha256(BIG).hexdigest())
    found = place.content(tenant, file.id)
    assert b"".join(found) == BIG
    assert max(map(len, found)) <= seam.READ_BYTES
    with place.begin(tenant) as session:
        assert b"".join(files.content(tenant, session, file.id)) == BIG
        chunks = session.scalar(select(func.count()).where(FileChunk.file_id == file.id))
    assert (chunks > 0) == (place.kind == "database")
    if place.kind != "database":
        assert file.store == place.settings.file_store
        assert place.keys() == [f"{tenant}/{file.id}"], "a generated key, and none of the file's name"


@everywhere
def test_an_empty_file_is_refused(place, tenant):
    with pytest.raises(ValueError, match="empty"):
        place.upload(tenant, b"")


@everywhere
def test_a_stranger_finds_nothing(place, tenant, other):
    file = place.upload(tenant, b"mine")
    assert place.content(other, file.id) == []
    assert not place.delete(other, file.id)
    assert place.content(tenant, file.id) == [b"mine"]


@pytest.mark.parametrize("bad", ["..", "a/b", "", ".", "a\\b", "a b", "a\n", "é"])
def test_no_id_leads_out_of_a_store(bad):
    for ids in ((bad, "file-x"), ("ten_x", bad)):
        with pytest.raises(ValueError, match="no key"):
            seam.key(*ids)


@elsewhere
def test_deleted_is_gone_at_once_and_its_bytes_once_no_job_needs_them(place, tenant, factory):
    file = place.upload(tenant, BIG)
    with factory.begin() as session:
        job = a_job(session, tenant, file.id)
        claim = a_claim(session, job)
    assert place.delete(tenant, file.id)
    assert place.content(tenant, file.id) == []
    assert store_sweep.doomed(place.worker, place.stores) == 0
    with security.transaction(place.worker, tenant) as session:
        assert leases.read_file(session, claim, file.id) == BIG
        leases.release(session, claim)
    with place.begin(tenant) as session:
        jobs.cancel(tenant, session, job.id)
    assert waiting(factory, file.id) == 1
    assert store_sweep.doomed(place.worker, place.stores) == 1
    assert place.keys() == []
    assert waiting(factory, file.id) == 0


def test_a_bucket_that_is_away_delays_a_deletion_and_loses_none(tmp_path, request, as_api, as_worker, tenant, factory):
    with s3_serving(tmp_path) as server:
        told = {"file_store": server.bucket("lost"), "s3_endpoint": server.endpoint, "store_retry_seconds": 0}
        keys = {"s3_access_key_id": "AKIAPLANTED", "s3_secret_access_key": "pl4nted-secret", "store_seconds": 20}
        place = Place("bucket", Settings(**told, **keys), as_api, as_worker)
        file = place.upload(tenant, b"mine")
    assert place.delete(tenant, file.id), "the row goes without the store"
    assert place.content(tenant, file.id) == []
    assert store_sweep.doomed(place.worker, place.stores) == 0
    assert waiting(factory, file.id) == 1
    with pytest.raises(StoreAway) as caught:
        place.upload(tenant, b"more")
    assert "pl4nted" not in str(caught.value)
    with factory.begin() as session:
        assert session.scalar(select(func.count()).where(File.tenant_id == tenant)) == 1


@folder_only
def test_a_folder_that_was_away_is_swept_when_it_is_back(place, tenant, factory, tmp_path):
    file = place.upload(tenant, b"mine")
    place.delete(tenant, file.id)
    (tmp_path / "store").rename(tmp_path / "unmounted")
    assert store_sweep.doomed(place.worker, place.stores) == 0
    assert waiting(factory, file.id) == 1
    (tmp_path / "unmounted").rename(tmp_path / "store")
    assert store_sweep.doomed(place.worker, place.stores) == 0, "not at once again"
    soon(factory)
    assert store_sweep.doomed(place.worker, place.stores) == 1
    assert place.keys() == []


@elsewhere
def test_an_upload_that_is_refused_leaves_nothing(place, tenant):
    with pytest.raises(ZeroDivisionError), place.uploading(tenant, b"mine"):
        raise ZeroDivisionError
    assert place.keys() == []

    def torn():
        yield BIG
        raise ZeroDivisionError

    with (
        pytest.raises(ZeroDivisionError),
        deposits.deposited(tenant, place.stores, partial(place.begin, tenant), torn()),
    ):
        raise AssertionError
    assert place.keys() == []


@elsewhere
def test_an_orphan_goes_after_a_safe_age_and_nothing_else_does(place, tenant, factory):
    file = place.upload(tenant, b"mine")
    orphan, strange = seam.key(tenant, new_id("file-")), f"{tenant}/notes.txt"
    for key in (orphan, strange):
        place.store.put(key, [b"of a process that was killed"])
    swept_long_ago(factory)
    assert store_sweep.orphans(place.worker, place.stores, 1.0) == 0, "an upload may be under way"
    assert store_sweep.orphans(place.worker, place.stores, -1.0) == 0, "another has looked a moment ago"
    swept_long_ago(factory)
    assert store_sweep.orphans(place.worker, place.stores, -1.0) == 1
    assert place.keys() == sorted([seam.key(tenant, file.id), strange])
    assert place.content(tenant, file.id) == [b"mine"]


@folder_only
def test_what_a_killed_writer_left_unfinished_goes_too(place, tenant, factory, tmp_path):
    file = place.upload(tenant, b"mine")
    left = tmp_path / "store" / tenant / f".{file.id}.a_b3x"
    left.write_bytes(b"mi")
    os.utime(left, (time.time() - 2 * HOUR,) * 2)
    swept_long_ago(factory)
    assert store_sweep.orphans(place.worker, place.stores, 1.0) == 1
    assert place.content(tenant, file.id) == [b"mine"]


@elsewhere
def test_bytes_that_are_not_those_that_were_put_are_withheld(place, tenant, factory):
    file = place.upload(tenant, b"mine")
    key = seam.key(tenant, file.id)
    for wrong in (b"thin", b"mi"):
        place.store.put(key, [wrong])
        with pytest.raises(ObjectLost), place.begin(tenant) as session:
            list(files.read(session, file.id))
    place.store.delete(key)
    with pytest.raises(ObjectLost):
        place.content(tenant, file.id)


@elsewhere
def test_a_store_without_its_mark_is_away_and_one_of_another_installation_is_refused(place, tenant):
    file = place.upload(tenant, b"mine")
    place.store.delete(seam.key(tenant, file.id))
    place.store.delete(seam.MARK)
    with pytest.raises(StoreAway, match="mounted"):
        place.content(tenant, file.id)
    place.store.put(seam.MARK, [b"another"])
    with pytest.raises(StoreAway, match="another installation"):
        place.upload(tenant, b"mine")
    assert place.keys() == []


@folder_only
def test_old_files_are_read_where_they_lie_when_the_setting_has_changed(place, tenant, as_api, as_worker):
    old = place.upload(tenant, b"old")
    now = Place("database", Settings(), as_api, as_worker)
    new = now.upload(tenant, b"new")
    assert (now.content(tenant, old.id), now.content(tenant, new.id)) == ([b"old"], [b"new"])
    assert (old.store, new.store) == (place.settings.file_store, None)
    now.delete(tenant, old.id)
    assert store_sweep.doomed(now.worker, now.stores) == 1
    assert place.keys() == []


@folder_only
def test_a_link_in_a_folder_is_not_followed(place, tenant, tmp_path):
    file = place.upload(tenant, b"mine")
    (tmp_path / "secret").write_bytes(b"not")
    path = tmp_path / "store" / tenant / file.id
    path.unlink()
    path.symlink_to(tmp_path / "secret")
    with pytest.raises(StoreAway):
        place.content(tenant, file.id)


def test_a_store_that_was_away_is_left_alone_for_a_while(tmp_path, as_api, as_worker, tenant):
    place = Place("folder", Settings(file_store=f"file://{tmp_path}/no", store_retry_seconds=HOUR), as_api, as_worker)
    with pytest.raises(StoreAway, match="No such file"):
        place.upload(tenant, b"mine")
    (tmp_path / "no").mkdir()
    with pytest.raises(StoreAway, match="a moment ago") as caught:
        place.upload(tenant, b"mine")
    assert 0 < caught.value.seconds <= HOUR
    shutil.rmtree(tmp_path / "no")


@pytest.mark.parametrize(
    "wrong", ["s3://key:pl4nted@bucket/x", "s3://", "file://host/x", "file:///", "file:///a/../b", "ftp://x/y", "here",
              "s3://bucket/x?secret=pl4nted", "file:///a//b"]
)  # fmt: skip
def test_a_store_that_is_none_is_refused_without_repeating_it(wrong):
    with pytest.raises(ValidationError, match="file_store") as caught:
        Settings(file_store=wrong)
    assert "pl4nted" not in str(caught.value)


def test_one_place_has_one_spelling():
    assert Settings(file_store="s3://bucket/a/b/").file_store == "s3://bucket/a/b"
    assert Settings(file_store="file:///srv/onward/").file_store == f"file://{Path('/srv/onward')}"


def test_no_text_of_stores_shows_a_secret(tmp_path):
    keys = {"s3_access_key_id": "AKIApl4nted", "s3_secret_access_key": "pl4nted-secret"}
    stores = Stores(Settings(file_store="s3://bucket/x", s3_endpoint="http://u:pl4nted@127.0.0.1:1", **keys))
    bucket = stores.at("s3://bucket/x")
    assert "pl4nted" not in f"{stores} {stores!r} {bucket} {bucket!r} {vars(bucket)}"
