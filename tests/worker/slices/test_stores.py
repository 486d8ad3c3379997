"""Jobs whose files lie in a folder or a bucket: trained and published there; a store that is away is no job's fault."""

import io
import tarfile

import pytest

from db import deposits, files, security
from db.ids import new_id
from db.settings import Settings
from db.store import seam
from db.store.opening import Stores, carrying
from db.tables import Adapter, File, Job, Worker
from tests.stores import settings_of
from tests.worker.slices.doubles import a_choice_job, rows
from worker.slices.loop import run_slice
from worker.slices.store_keeper import StoreKeeper


@pytest.fixture(params=["folder", "bucket"])
def stores(request, tmp_path):
    return Stores(Settings(**settings_of(request.param, tmp_path / "store", request, new_id("bucket-"))))


@pytest.fixture
def keeper(context, stores):
    """Not started; the context's sessions carry the stores."""
    context.factory, context.stores = carrying(context.factory, stores), stores
    return StoreKeeper(context.factory, stores, context.settings, context.heartbeat)


@pytest.fixture
def job(context, stores, factory, keeper):
    """A job whose training file lies in the store."""
    with factory.begin() as session:
        job_id = a_choice_job(session, context.model)
        found = session.get_one(Job, job_id)
        tenant = found.tenant_id
    about = {"filename": "a.jsonl", "purpose": "fine-tune", "format": "choice", "rows": 8}
    owner = carrying(factory, stores)
    with (
        deposits.deposited(tenant, stores, lambda: security.transaction(owner, tenant), [rows(8)]) as chunks,
        owner.begin() as session,
    ):
        file_id = files.create(tenant, session, **about, chunks=chunks).id
        found = session.get_one(Job, job_id)
        found.training_file, found.spec = file_id, {**found.spec, "training_file": file_id}
    return job_id


def adapter_tar(factory, stores, job_id):
    with factory.begin() as session:
        made = session.query(Adapter).filter_by(job_id=job_id).one()
        file = session.get_one(File, made.file_id)
    assert file.store == stores.settings.file_store
    whole = b"".join(seam.whole(stores.at(file.store), seam.key(file.tenant_id, file.id), file.bytes))
    return tarfile.open(fileobj=io.BytesIO(whole)).getnames()


def test_a_job_reads_its_file_from_the_store_and_publishes_there(context, factory, stores, row, job):
    assert run_slice(context) is False
    assert row(job).state == "succeeded"
    assert any(name.endswith("adapter_model.safetensors") for name in adapter_tar(factory, stores, job))


@pytest.mark.parametrize("stores", ["folder"], indirect=True)
def test_a_store_that_is_away_takes_the_worker_out_of_service_and_blames_no_job(
    context, factory, stores, row, job, keeper, tmp_path, rung
):
    store, away = tmp_path / "store", tmp_path / "unmounted"
    store.rename(away)
    run_slice(context)
    assert context.heartbeat.out is not None
    assert context.heartbeat.out.reason == "store"
    assert (row(job).state, row(job).suspect, row(job).step) == ("queued", False, 0)
    keeper.turn()
    assert context.heartbeat.out is not None
    away.rename(store)
    keeper.turn()
    assert context.heartbeat.out is None
    assert rung[-1] == context.model
    with factory.begin() as session:
        assert session.get_one(Worker, context.worker_id).state == "ready"
    context.scorer.sees = lambda _: store.exists() and store.rename(away)  # before it can publish
    run_slice(context)
    assert context.heartbeat.out is not None
    assert (row(job).state, row(job).suspect, row(job).step) == ("queued", False, row(job).total_steps)
    away.rename(store)
    keeper.turn()
    context.scorer.sees = lambda _: None
    run_slice(context)
    assert row(job).state == "succeeded"
    assert adapter_tar(factory, stores, job)


def test_a_file_that_its_store_has_lost_ends_its_job_and_no_worker(context, stores, row, job):
    stores.at(stores.settings.file_store).delete(seam.key(row(job).tenant_id, row(job).training_file))
    run_slice(context)
    assert context.heartbeat.out is None
    assert (row(job).state, row(job).error["code"]) == ("failed", "file_lost")
