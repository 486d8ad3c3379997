"""`onward adapters`: what was published comes back whole, and its journal vouches for it."""

import gzip
import hashlib
import io
import shutil
import tarfile

import pytest
from sqlalchemy import update

from cli import adapters
from cli.client import Failure
from db.tables import JournalStep
from tests.cli.conftest import complaint, read
from tests.cli.trained import train

WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def trained(anna, factory, base_folder, home):
    return train(anna, factory, base_folder, home)


def test_adapters_are_listed(onward, trained):
    assert trained.fine_tuned_model in [a["id"] for a in read(onward("adapters", "list", "--json"))]
    assert trained.id in onward("adapters", "list").stdout


@pytest.mark.parametrize("by", ["fine_tuned_model", "id"])
def test_a_download_is_the_published_directory(onward, trained, home, tmp_path, by):
    folder = tmp_path / "adapter"
    answer = read(onward("adapters", "download", getattr(trained, by), "-o", str(folder), "--json"))
    published = home / "adapters" / trained.id
    assert {f.name: f.read_bytes() for f in folder.iterdir()} == {f.name: f.read_bytes() for f in published.iterdir()}
    assert answer["sha256"] == hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    assert answer["sha256"] == trained.onward["adapter"]["sha256"]
    assert "not empty" in complaint(onward("adapters", "download", trained.id, "-o", str(folder), ok=False))


def test_what_was_not_published_cannot_be_downloaded(onward, trained, ben, monkeypatch):
    assert "does not exist" in complaint(onward("adapters", "download", "ft:tiny:x::y", ok=False))
    monkeypatch.setenv("ONWARD_API_KEY", ben.secret)
    assert "does not exist" in complaint(onward("adapters", "download", trained.fine_tuned_model, ok=False))


def test_a_lost_store_is_rebuilt_to_the_bit(onward, shell, trained, home, tmp_path):
    """Under the home that the command is run with, wherever the first one was; the row says where it lies then."""
    before = {f.name: f.read_bytes() for f in (home / "adapters" / trained.id).iterdir()}
    (entry,) = read(onward("adapters", "rebuild", "--all", "--json"))
    assert entry["ok"]
    assert {f.name: f.read_bytes() for f in (tmp_path / "adapters" / trained.id).iterdir()} == before
    shutil.rmtree(tmp_path / "adapters")
    assert read(shell("adapters", "verify", trained.id, "--json"))["on_disk"] is None
    assert "equal hash" in shell("adapters", "rebuild", trained.id).stdout
    assert read(shell("adapters", "verify", trained.id, "--json"))["on_disk"] == entry["expected"]
    assert "say which" in complaint(shell("adapters", "rebuild", ok=False))


def test_verify_rebuilds_and_notices_a_changed_journal(onward, trained, factory):
    said = onward("adapters", "verify", trained.fine_tuned_model).stdout
    assert f"rebuilt from its journal (6 steps), equal hash {trained.onward['adapter']['sha256']}" in said
    assert read(onward("adapters", "verify", trained.id, "--json"))["ok"]
    row = update(JournalStep).where(JournalStep.job_id == trained.id, JournalStep.step == 3)
    with factory.begin() as session:
        session.execute(row.values(losses=[0.5, 0.9]))
    assert "is not the recorded" in complaint(onward("adapters", "verify", trained.id, ok=False))


def test_an_adapter_whose_journal_has_changed_is_not_rebuilt(shell, anna, factory, base_folder, home, tmp_path):
    other = train(anna, factory, base_folder, home)
    assert read(shell("adapters", "rebuild", other.id, "--json"))[0]["ok"]
    weights = tmp_path / "adapters" / other.id / WEIGHTS
    before = weights.read_bytes()
    row = update(JournalStep).where(JournalStep.job_id == other.id, JournalStep.step == 2)
    with factory.begin() as session:
        session.execute(row.values(losses=[0.5, 0.9]))
    assert "are not what was recorded" in complaint(shell("adapters", "rebuild", other.id, ok=False))
    assert weights.read_bytes() == before


def test_verify_of_nothing(shell):
    assert "there is no adapter 'ft:nothing'" in complaint(shell("adapters", "verify", "ft:nothing", ok=False))


def packed(name: str, link: str | None = None, **kind: bytes) -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        entry = tarfile.TarInfo(name)
        for field, value in kind.items():
            setattr(entry, field, value)
        entry.linkname = link or ""
        archive.addfile(entry)
    return out.getvalue()


TRICKS = {
    "a name that leads out": packed("../out"),
    "a link that leads out": packed("in", "../../out", type=tarfile.SYMTYPE),
    "a hard link that leads out": packed("in", "../../out", type=tarfile.LNKTYPE),
    "a device": packed("in", type=tarfile.CHRTYPE),
    "compressed": gzip.compress(packed(WEIGHTS)),
    "no tar": b"x" * 2000,
}


@pytest.mark.parametrize("data", TRICKS.values(), ids=TRICKS)
def test_an_archive_that_is_a_trick_is_not_unpacked(monkeypatch, tmp_path, data):
    """What a server sends is no more to be trusted than what a tenant does."""
    monkeypatch.setattr(adapters, "save", lambda _client, _file, path: path.write_bytes(data))
    folder = tmp_path / "deep" / "adapter"
    with pytest.raises(Failure, match="no adapter"):
        adapters.fetch(None, "file-a", folder)
    assert not [p for p in tmp_path.rglob("*") if p.is_file() or p.is_symlink()]
