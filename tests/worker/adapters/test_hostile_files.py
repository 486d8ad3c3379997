"""Files in a worker's folders that it did not write, or that were damaged: refused, not read whole, not followed."""

import json
import os
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis
from hypothesis import strategies as st
from safetensors.numpy import save

from tests.worker.adapters.published import base, journal, replay, spec
from worker.adapters.publish import publish
from worker.adapters.snapshots import Prefix, Snapshots
from worker.zo.methods import mezo

MIB = 1 << 20
LOSSES = [[1.0, 2.0]] * 3


@pytest.fixture(scope="module")
def llama(tmp_path_factory):
    return base("llama", tmp_path_factory.mktemp("bases"))


@pytest.fixture
def place(tmp_path) -> Path:
    (tmp_path / "ftjob-a").mkdir()
    return tmp_path / "ftjob-a" / "000000003.safetensors"


def read(place: Path):
    return Snapshots(place.parents[1]).newest("ftjob-a", spec(), LOSSES, mezo.State)


def file(header: object, body: bytes = b"", size: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if size is None else size).to_bytes(8, "little") + text + body


def tensor(shape: list[int], end: int, kind: str = "F32") -> dict[str, object]:
    return {"dtype": kind, "shape": shape, "data_offsets": [0, end]}


def about(**more: str) -> dict[str, str]:
    return {"prefix": Prefix(spec(), LOSSES).hex(), "state": '{"step": 3}', "sha256": "", **more}


LYING = {
    "empty": b"",
    "seven bytes": b"\x08" * 7,
    "header of 2**63 bytes": file(b"{}", size=2**63),
    "header of all there is to address": file(b"{}", size=2**64 - 1),
    "header longer than the file": file(b"{}", size=3),
    "header cut": file(b'{"params": {'),
    "header deep": file(b'{"a":' * 50_000 + b"1" + b"}" * 50_000),
    "shape of 2**62": file({"params": tensor([2**62], 4), "__metadata__": about()}, b"\0" * 4),
    "shapes whose product wraps": file({"params": tensor([2**33, 2**33], 0), "__metadata__": about()}),
    "negative shape": file({"params": tensor([-1], 4), "__metadata__": about()}, b"\0" * 4),
    "offsets beyond the end": file({"params": tensor([2**30], 2**32), "__metadata__": about()}, b"\0" * 4),
    "offsets backwards": file({"params": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}}, b"\0" * 4),
    "unknown dtype": file({"params": tensor([1], 4, "F33"), "__metadata__": about()}, b"\0" * 4),
    "dtype that numpy has not": file({"params": tensor([2], 4, "BF16"), "__metadata__": about()}, b"\0" * 4),
    "no metadata": file({"params": tensor([1], 4)}, b"\0" * 4),
    "metadata no text": file({"params": tensor([1], 4), "__metadata__": {"prefix": 1}}, b"\0" * 4),
    "names that are paths": file({"../../etc/passwd": tensor([1], 4), "__metadata__": about()}, b"\0" * 4),
    "100,000 names": file({f"n{i}": tensor([0], 0) for i in range(100_000)} | {"__metadata__": about()}),
    "bytes after the end": file({"params": tensor([1], 4), "__metadata__": about()}, b"\0" * 99),
}


@pytest.mark.parametrize("data", LYING.values(), ids=LYING)
def test_a_file_that_lies_is_no_snapshot(place, data):
    place.write_bytes(data)
    tracemalloc.start()
    try:
        assert read(place) is None
        assert tracemalloc.get_traced_memory()[1] < 64 * MIB
    finally:
        tracemalloc.stop()


STATES = ["[]", "7", "null", '"x"', '["step", "skipped", "nonfinite", "buffers"]', "[" * 100_000,
          '{"step": {"tensor": []}}',
          '{"step": 3, "skipped": 0, "nonfinite": 0, "buffers": [{"tensor": "none"}]}', "{", "NaN"]  # fmt: skip


@pytest.mark.parametrize("state", STATES, ids=range(len(STATES)))
def test_a_state_that_is_none_is_no_snapshot_even_with_its_hash(place, state):
    from worker.adapters.snapshots import _digest

    tensors = {"params": np.zeros(4, np.float32)}
    place.write_bytes(save(tensors, metadata=about(state=state, sha256=_digest(state, tensors))))
    assert read(place) is None


def test_a_file_of_another_journal_takes_no_memory(place):
    """Eight GiB that are on no disk, under an honest header."""
    count = 2 << 30
    header = file({"params": tensor([count], 4 * count), "__metadata__": about(prefix="another")})
    with place.open("wb") as out:
        out.write(header)
        out.truncate(len(header) + 4 * count)
    Path("/proc/self/clear_refs").write_text("5")
    before = peak()
    assert read(place) is None
    assert peak() - before < 64 * MIB


def peak() -> int:
    line = next(x for x in Path("/proc/self/status").read_text().splitlines() if x.startswith("VmHWM"))
    return int(line.split()[1]) << 10


@hypothesis(max_examples=200, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_snapshot_that_was_tampered_with_is_the_same_or_none(llama, tmp_path_factory, data):
    folder = tmp_path_factory.mktemp("snapshots")
    job, losses = spec(), journal(spec(), llama, 2)
    made = replay(job, llama, losses)
    Snapshots(folder).write("ftjob-a", made, Prefix(job, losses).hex())
    (path,) = (folder / "ftjob-a").iterdir()
    raw = bytearray(path.read_bytes())
    at = data.draw(st.integers(0, 600) | st.integers(0, len(raw)))
    raw[at : at + data.draw(st.integers(0, 16))] = data.draw(st.binary(max_size=16))
    if data.draw(st.booleans()):
        del raw[data.draw(st.integers(0, len(raw))) :]
    path.write_bytes(raw)
    found = Snapshots(folder).newest("ftjob-a", job, losses, mezo.State)
    assert found is None or found.params.tobytes() == made.params.tobytes()


def test_links_pipes_and_strange_names_are_not_followed(llama, tmp_path):
    job, losses = spec(), journal(spec(), llama, 2)
    Snapshots(tmp_path / "other").write("ftjob-b", replay(job, llama, losses), Prefix(job, losses).hex())
    (good,) = (tmp_path / "other" / "ftjob-b").iterdir()
    own = Snapshots(tmp_path / "own")
    (own.folder / "ftjob-a").mkdir(parents=True)
    (own.folder / "ftjob-a" / good.name).symlink_to(good)
    (own.folder / "ftjob-c").symlink_to(good.parent)
    (own.folder / "ftjob-d").mkdir()
    os.mkfifo(own.folder / "ftjob-d" / good.name)  # opening it would wait for ever
    (own.folder / "ftjob-e").mkdir()
    for name in ("x.safetensors", "-00000001.safetensors", "\u0661\u0661.safetensors", "1e3.safetensors"):
        (own.folder / "ftjob-e" / name).write_bytes(good.read_bytes())
    for name in ("ftjob-a", "ftjob-c", "ftjob-d", "ftjob-e", "../other"):
        assert own.newest(name, job, losses, mezo.State) is None


@pytest.mark.parametrize(
    "trick", ["folder a link", "folder a file", "weights a link", "weights a pipe", "weights huge"]
)
def test_what_stands_where_an_adapter_is_published_is_replaced_and_not_followed(llama, tmp_path, trick):
    job = spec()
    made = replay(job, llama, journal(job, llama, 3))
    good = publish(tmp_path / "good", "ftjob-x", "name", job, llama, made)
    folder, outside = tmp_path / "adapters", tmp_path / "good" / "ftjob-x"
    target = folder / "ftjob-x"
    folder.mkdir()
    before = {p.name: p.read_bytes() for p in outside.iterdir()}
    if trick == "folder a link":
        target.symlink_to(outside)
    elif trick == "folder a file":
        target.write_text("x")
    else:
        target.mkdir()
        weights = target / "adapter_model.safetensors"
        if trick == "weights a link":
            weights.symlink_to(outside / weights.name)
        elif trick == "weights a pipe":
            os.mkfifo(weights)
        else:
            with weights.open("wb") as out:
                out.truncate(1 << 40)
    published = publish(folder, "ftjob-x", "name", job, llama, made)
    assert published.sha256 == good.sha256
    assert Path(published.path) == target.resolve() == target
    assert all(p.is_file() and not p.is_symlink() for p in target.iterdir())
    assert (
        {p.name: p.read_bytes() for p in target.iterdir()}
        == before
        == {p.name: p.read_bytes() for p in outside.iterdir()}
    )
