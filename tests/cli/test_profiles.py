"""`onward profiles`: made from a base's folder and rows alone, added by an operator, fetched by any tenant."""

import pytest

from db.contract.tokens.base_model import open_base
from db.tables import Profile
from tests.cli.conftest import complaint, read
from tests.profiled import made, sha256
from tests.worker.adapters.received import ROWS
from worker.runs import profiles
from worker.types import Layout, Module


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(ROWS)
    return str(path)


def layout(base_folder, rank=2):
    base = open_base("tiny", str(base_folder))
    return Layout(rank, 2.0 * rank, tuple(Module(*one) for one in base.select(("q_proj",))))


def test_one_is_made_added_listed_and_saved(onward, rows, base_folder, tmp_path, factory):
    out = tmp_path / "made.safetensors"
    words = ("--base", str(base_folder), "--rows", rows, "--rank", "2", "--targets", "q_proj", "--name", "tiny")
    said = read(onward("profiles", "make", "mask", *words, "--share", "0.2", "--out", str(out), "--json"))
    assert said["sha256"] == sha256(out.read_bytes())
    assert (said["kind"], said["rank"], said["share"], said["targets"]) == ("mask", 2, 0.2, ["q_proj"])
    assert "over 9 rows" in said["said"][0]
    again = tmp_path / "again.safetensors"
    assert said["sha256"] in onward("profiles", "make", "mask", *words, "--share", "0.2", "-o", str(again)).stdout
    added = read(onward("profiles", "add", str(out), "--json"))
    assert (added["added"], added["models"]) == (True, ["tiny"])
    assert "(was there)" in onward("profiles", "add", str(out)).stdout
    with factory.begin() as session:
        assert session.get_one(Profile, said["sha256"]).data == out.read_bytes()
    listed = read(onward("profiles", "list", "--model", "tiny", "--json"))
    assert said["sha256"] in [one["id"] for one in listed]
    assert said["sha256"] in onward("profiles", "list").stdout
    shown = onward("profiles", "show", said["sha256"][:12]).stdout
    assert "mask" in shown
    assert "0.2" in shown
    fetched = read(onward("profiles", "save", said["sha256"], "-o", str(tmp_path / "fetched"), "--json"))
    assert (tmp_path / "fetched").read_bytes() == out.read_bytes()
    assert fetched["bytes"] == len(out.read_bytes())


def test_what_cannot_be_made_or_added_is_said_in_a_line(onward, rows, base_folder, tmp_path):
    words = ("--base", str(base_folder), "--rows", rows, "--out", str(tmp_path / "x"))
    assert "no kind of profile 'masks'" in complaint(onward("profiles", "make", "masks", *words, ok=False))
    assert "has no module 'nope'" in complaint(
        onward("profiles", "make", "basis", *words, "--targets", "nope", ok=False)
    )
    assert "no profile begins with ffff" in complaint(onward("profiles", "show", "ffff", ok=False))
    foreign = tmp_path / "foreign.safetensors"
    foreign.write_bytes(made("mask", layout(base_folder), "0" * 64))
    assert "for another base" in complaint(onward("profiles", "add", str(foreign), ok=False))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(foreign.read_bytes()[:-9])
    assert "is refused: it is no profile" in complaint(onward("profiles", "add", str(cut), ok=False))
    assert not (tmp_path / "x").exists()


def test_only_the_database_is_asked_to_add_one(shell, base_folder, tmp_path):
    """As `onward migrate`: no API need run."""
    file = tmp_path / "p.safetensors"
    file.write_bytes(made("factors", layout(base_folder), open_base("tiny", str(base_folder)).fingerprint))
    assert read(shell("profiles", "add", str(file), "--json"))["sha256"] == profiles.read(file.read_bytes()).of.sha256
