"""A receipt gives the adapter back to the bit wherever it is read, and is refused by name where it is not true."""

import base64
import json
import os
import random
import shutil
import struct
import subprocess
import sys
import time
from copy import deepcopy
from dataclasses import replace

import numpy as np
import pytest

from db.contract.history import History
from db.contract.methods import mezo
from db.contract.receipts import form, signing
from db.contract.receipts.form import Told
from db.contract.receipts.refused import Refused
from db.contract.spec import AdapterSpec
from db.contract.tokens.base_model import open_base
from tests.docs.following import ROOT
from tests.waiting import HANG
from tests.worker.adapters.received import KEY, OTHER_KEY, ROWS, STEPS, trained
from tests.worker.adapters.received import spec as received_spec
from worker.adapters import base_files, peft_files, receipt, receipt_audit
from worker.adapters.peft_files import WEIGHTS, sha256
from worker.oracle.torch_scorer import TorchScorer
from worker.runs import rebuilding, recipes
from worker.types import Loss

TRUSTED = (signing.public_of(KEY),)
# Of an unsigned receipt, what a replay does not ask for: docs/receipts.md says so.
UNREPLAYED = {
    "adapter.name", "job", "training", "validation", "versions", "model", "objective", "training_file",
    "validation_file", "steps", "batch_size", "repeat", "eval_every", "eval_rows", "token_budget", "suffix", "clip",
    "held_out", "on_divergence", "max_restarts", "patience",
    "warmup_steps", "momentum", "beta2",  # settings that this method, as it is set, does not ask for
}  # fmt: skip


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("base"))


def taken(data, made, trusted=TRUSTED):
    """All that `onward receipts verify` asks, in its order."""
    found = form.read(data)
    if trusted:
        signing.check(found, trusted)
    base_files.compare(found.base, made.folder)
    return receipt.rebuilt(found, made.base)


def refusal(data, made, trusted=TRUSTED):
    with pytest.raises(Refused) as caught:
        taken(data, made, trusted)
    return caught.value.code


def test_a_receipt_gives_the_adapter_back(made):
    assert taken(made.receipt(), made)[WEIGHTS] == made.weights
    assert taken(made.receipt(None), made, ())[WEIGHTS] == made.weights
    found = form.read(made.receipt())
    assert found.history.losses == [list(row) for row in made.told[0].history.losses]
    assert found.history.spec == made.told[0].history.spec


def test_it_has_one_byte_form_and_is_made_alike(made):
    assert made.receipt() == made.receipt()
    document = json.loads(made.receipt())
    for other in (json.dumps(document).encode(), made.receipt()[:-1], made.receipt() + b"\n", b" " + made.receipt()):
        assert refusal(other, made) == "not_canonical"


def test_another_machine_without_simd_needs_neither_engine_nor_torch(made, tmp_path):
    """A fresh interpreter in which numpy dispatches to no optional instruction set and no import of an engine works."""
    (tmp_path / "receipt.json").write_bytes(made.receipt())
    small = tmp_path / "base"
    small.mkdir()
    for name in ("config.json", *base_files.TOKENIZER):
        if (made.folder / name).exists():
            shutil.copy(made.folder / name, small)
    program = (
        "import sys\n"
        "for name in ('torch', 'vllm', 'transformers', 'peft'): sys.modules[name] = None\n"
        "from cli.main import app\n"
        f"app(['receipts', 'rebuild', 'receipt.json', '--base', 'base', '--key', '{TRUSTED[0]}', '--out', 'out'])"
    )
    features = " ".join(np._core._multiarray_umath.__cpu_dispatch__)
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT), "NPY_DISABLE_CPU_FEATURES": features}
    command = [sys.executable, "-W", "ignore", "-c", program]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=HANG)
    assert done.returncode == 0, done.stderr
    assert "the base's weights are not here: not compared" in done.stdout
    assert (tmp_path / "out" / WEIGHTS).read_bytes() == made.weights


def test_a_signature_is_checked_the_same_without_cryptography(made):
    """Where the API runs there is none: securesystemslib then checks in Python."""
    program = (
        "import sys\n"
        "sys.modules['cryptography'] = None\n"
        "from db.contract.receipts import form, signing\n"
        "from db.contract.receipts.refused import Refused\n"
        "data = sys.stdin.buffer.read()\n"
        f"print(signing.check(form.read(data), {TRUSTED!r}))\n"
        "try: signing.check(form.read(data.replace(b'ft:tiny:a::x', b'ft:tiny:a::y')), " + repr(TRUSTED) + ")\n"
        "except Refused as error: print(error.code)"
    )
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, cwd=ROOT, input=made.receipt(), capture_output=True, timeout=HANG)
    assert done.stdout.decode().split() == [signing.key_id(TRUSTED[0]), "signature"], done.stderr.decode()


def test_parents_are_replayed_and_each_must_be_what_its_child_names(made):
    child = trained(made.folder, parent=made)
    assert taken(child.receipt(), child)[WEIGHTS] == child.weights
    own, parent = child.told
    assert refusal(child.receipt(told=(own,)), child) == "parents"
    changed = deepcopy(parent.history.losses)
    changed[0][0] += 0.5
    lying = (own, replace(parent, history=replace(parent.history, losses=changed)))
    assert refusal(child.receipt(told=lying), child) == "hash"
    shorter = (own, replace(parent, history=parent.history.upto(STEPS - 1)))
    assert refusal(child.receipt(told=shorter), child) == "parents"


def test_refusals_have_names(made, tmp_path_factory):
    good, told = made.receipt(), made.told[0]
    document = json.loads(good)

    def changed(**fields):
        return form.canonical(document | fields) + b"\n"

    losses = [list(row) for row in told.history.losses]
    reordered = replace(told, history=replace(told.history, losses=[losses[1], losses[0], *losses[2:]]))
    assert refusal(made.receipt(told=(reordered,)), made) == "hash"
    assert refusal(made.receipt(sha256="0" * 64), made) == "hash"
    assert refusal(made.receipt(None), made) == "unsigned"
    assert refusal(made.receipt(OTHER_KEY), made) == "unknown_key"
    assert refusal(changed(versions={}), made) == "signature"
    assert refusal(changed(adapter=document["adapter"] | {"step": STEPS + 1}), made) == "truncated"
    assert refusal(changed(adapter=document["adapter"] | {"step": STEPS - 1}), made) == "history"
    assert refusal(changed(jobs=[document["jobs"][0] | {"losses": document["jobs"][0]["losses"][:-32]}]), made)
    assert refusal(good[: len(good) // 2], made) == "truncated"
    assert refusal(b"", made) == "not_json"
    assert refusal(b"\xff\xfe", made) == "not_json"
    assert refusal(b"[" * 100_000, made) == "not_json"
    assert refusal(changed(extra=1), made) == "fields"
    assert refusal(changed(format="onward.receipt/2"), made) == "fields"
    spec = document["jobs"][0]["spec"]
    for other in ({"model": 7}, {"unheard_of": 1}, {"steps": float(STEPS)}, {"method": None}):
        assert refusal(changed(jobs=[document["jobs"][0] | {"spec": spec | other}]), made) == "spec"
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    shutil.copytree(made.folder, elsewhere, dirs_exist_ok=True)
    for name in ("config.json", "tokenizer.json", "model.safetensors"):
        kept = (elsewhere / name).read_bytes()
        (elsewhere / name).write_bytes(kept + b" ")
        with pytest.raises(Refused, match=r"config\.json|tokenizer|weights") as caught:
            base_files.compare(form.read(good).base, elsewhere)
        assert caught.value.code == "foreign_base"
        (elsewhere / name).write_bytes(kept)
    (elsewhere / "model.safetensors").unlink()
    assert base_files.compare(form.read(good).base, elsewhere) is False
    with pytest.raises(Refused, match="weights"):
        base_files.compare(form.read(good).base, elsewhere, weighed=True)
    with pytest.raises(Refused, match="no base"):
        base_files.compare(form.read(good).base, elsewhere / "nothing")


def leaves(value, path=()):
    """(path, value) of everything in a document that is no list or object, and of those that are empty."""
    if isinstance(value, dict) and value:
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list) and value:
        for number, item in enumerate(value):
            yield from leaves(item, (*path, number))
    else:
        yield path, value


def forged(document, rng):
    """The document with one thing changed, and where: a leaf, a step's losses, or the order or number of them."""
    other = deepcopy(document)
    if rng.random() < 0.4:
        job = rng.choice(other["jobs"])
        raw = bytearray(base64.b64decode(job["losses"]))
        rows = [raw[i : i + 16] for i in range(0, len(raw), 16)]
        kind, at = rng.choice(["loss", "swap", "sides"]), rng.randrange(len(rows))
        if kind == "loss":
            side = 8 * rng.randrange(2)
            (loss,) = struct.unpack("<d", rows[at][side : side + 8])
            rows[at][side : side + 8] = struct.pack("<d", loss + rng.choice([-1, 1]) * 10 ** rng.uniform(-2, 2))
        elif kind == "swap":
            rows[at], rows[at - 1] = rows[at - 1], rows[at]
        else:
            rows[at] = rows[at][8:] + rows[at][:8]
        job["losses"] = base64.b64encode(b"".join(rows)).decode()
        return other, ("losses",)
    path, value = rng.choice([leaf for leaf in leaves(document) if leaf[0][-1] != "losses"])
    place = other
    for part in path[:-1]:
        place = place[part]
    match value:
        case str() if len(value) >= 64 and set(value) <= set("0123456789abcdef"):
            at = rng.randrange(len(value))
            place[path[-1]] = value[:at] + rng.choice(sorted(set("0123456789abcdef") - {value[at]})) + value[at + 1 :]
        case str():
            place[path[-1]] = value + rng.choice("xyz")
        case bool():
            place[path[-1]] = not value
        case int():
            place[path[-1]] = value + rng.choice([-1, 1, 7])
        case float():
            place[path[-1]] = value * rng.choice([0.5, 1.25, -1.0]) or 0.5
        case _:
            place[path[-1]] = rng.choice([1, "x", [1], 0.5])
    return other, path


def test_of_a_thousand_forged_receipts_none_is_taken(made):
    """By whoever knows the public key. Every kind of change is among them, and every field."""
    document, rng, where = json.loads(made.receipt()), random.Random(0), set()
    for number in range(1000):
        if number % 10 == 0:
            data = bytearray(made.receipt())
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            data, path = bytes(data), ("bytes",)
        elif number % 10 == 1:
            data, path = made.receipt()[: rng.randrange(len(made.receipt()))], ("cut",)
        else:
            other, path = forged(document, rng)
            data = form.canonical(other) + b"\n"
        where.add(tuple(p for p in path if isinstance(p, str)))
        with pytest.raises(Refused):
            taken(data, made)
    named = {tuple(p for p in path if isinstance(p, str)) for path, _ in leaves(document)}
    assert {path for path in named if path[-1] != "losses"} - where == set()
    assert {("losses",), ("bytes",), ("cut",)} <= where


def test_without_a_key_a_replay_refuses_what_it_follows_from(made):
    """What is taken all the same is a field that no replay asks for; or leads to the same adapter, bit for bit."""
    document, rng, took = json.loads(made.receipt(None)), random.Random(1), set()
    for _ in range(1000):
        other, path = forged(document, rng)
        try:
            files = taken(form.canonical(other) + b"\n", made, ())
        except Refused:
            continue
        assert files[WEIGHTS] == made.weights
        named = (
            {".".join(path), *(part for part in path if isinstance(part, str))} if path[0] == "adapter" else set(path)
        )
        assert named & UNREPLAYED, path
        took |= named & UNREPLAYED
    assert "training" in took, "the rows' hash is what a signature or an audit vouches for"


def test_an_audit_ties_losses_to_rows(made):
    found = form.read(made.receipt())
    data = receipt_audit.rows(found, made.base, ROWS)
    scorer = TorchScorer(made.folder)
    honest = list(receipt_audit.rescored(found, made.base, data, scorer, range(STEPS)))
    assert [one.step for one in honest] == list(range(STEPS))
    assert max(one.difference for one in honest) < 1e-5
    # A forger who replays the losses that he made up has a receipt that agrees with itself.
    told = made.told[0]
    losses = [list(row) for row in told.history.losses]
    losses[5][1] += 0.01
    lies = replace(told, history=replace(told.history, losses=losses))
    point = rebuilding.rebuild(lies.history, made.base)
    digest = sha256(peft_files.weights(recipes.layout(told.history.spec, made.base), point.params))
    assert refusal(made.receipt(None, told=(lies,)), made, ()) == "hash"
    forgery = made.receipt(None, sha256=digest, told=(lies,))
    assert sha256(taken(forgery, made, ())[WEIGHTS]) == digest
    assert refusal(forgery, made) == "unsigned"
    again = receipt_audit.rescored(form.read(forgery), made.base, data, scorer, range(STEPS))
    off = {one.step for one in again if one.difference > 1e-4}
    assert 5 in off, "the losses after it were of another adapter too"
    assert min(off) == 5
    with pytest.raises(Refused, match="training rows"):
        receipt_audit.rows(found, made.base, ROWS + b"\n")
    with pytest.raises(Refused, match="validation rows"):
        receipt_audit.rows(found, made.base, ROWS, ROWS)


def test_an_audit_scores_a_method_s_own_rows(made):
    found = trained(made.folder, name="svrg", anchor_rows=7, anchor_every=4)
    told = form.read(found.receipt())
    data, scorer = receipt_audit.rows(told, found.base, ROWS), TorchScorer(found.folder)
    honest = list(receipt_audit.rescored(told, found.base, data, scorer, range(STEPS)))
    assert max(one.difference for one in honest) < 1e-5
    scorer.close()


def test_losses_that_are_no_numbers_survive(made):
    told = made.told[0]
    losses = [list(row) for row in told.history.losses]
    losses[3] = [float("nan"), float("inf")]
    found = form.read(made.receipt(told=(replace(told, history=replace(told.history, losses=losses)),)))
    assert struct.pack("<2d", *found.history.losses[3]) == struct.pack("<2d", *losses[3])

    class Broken:
        def score(self, trials):
            return [Loss(float("nan"), 1, 0, 1) for _ in trials]

    data = receipt_audit.rows(found, made.base, ROWS)
    (bad, good) = receipt_audit.rescored(found, made.base, data, Broken(), [3, 4])
    assert (bad.difference, good.difference) == (0.0, float("inf"))


@pytest.mark.parametrize(("steps", "sample", "least", "most"), [
    (10**6, 50, 0.923, 0.924), (10**6, 100, 0.994, 0.995), (200, 50, 0.945, 0.955), (20, 20, 1.0, 1.0), (1, 50, 1, 1),
])  # fmt: skip
def test_the_chance_to_find_a_forgery(steps, sample, least, most):
    assert least <= receipt_audit.chance(steps, sample) <= most


def test_the_receipt_of_the_demos_sentiment_job_is_a_few_kilobytes(made, tmp_path):
    """The demo's base by its configuration, one pair a step and 200 steps: sizes and time depend on these alone."""
    config = json.loads((made.folder / "config.json").read_text()) | {
        "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30, "num_attention_heads": 9,
        "num_key_value_heads": 3, "head_dim": 64, "vocab_size": 49152,
    }  # fmt: skip
    (tmp_path / "config.json").write_text(json.dumps(config))
    shutil.copy(made.folder / "tokenizer.json", tmp_path)
    base = open_base("smollm2-135m-instruct", str(tmp_path))
    preset = mezo.SMOLLM2
    job = received_spec(None, steps=preset.steps, **preset.settings).model_copy(
        update={"model": base.name, "validation_file": "file-b", "suffix": "sentiment", "adapter": AdapterSpec(
            rank=preset.rank, alpha=preset.alpha, targets=preset.targets, activation="answer", invocation=(27, 8, 9),
        )}
    )  # fmt: skip
    losses = np.random.default_rng(0).normal(0.6, 0.1, (preset.steps, 2)).tolist()
    history = History(job, losses)
    point = rebuilding.rebuild(history, base)
    weights = peft_files.weights(recipes.layout(job, base), point.params)
    told = (Told("ftjob-" + "a" * 24, history, "0" * 64, "1" * 64),)
    about = {"onward": "0.1.0", "scorer": "vllm", "dtype": "float32", "vllm": "0.32.0", "torch": "2.13.0+cpu"}
    name = "ft:smollm2-135m-instruct:" + "b" * 24 + ":sentiment:" + "a" * 24
    data = receipt.issued(name, sha256(weights), base_files.hashed(tmp_path), told, about, KEY)
    assert len(data) <= 8000
    assert len(weights) > 300 * len(data), "a ratio that README.md and docs/receipts.md tell"
    began = time.process_time()
    assert receipt.rebuilt(form.read(data), base)[WEIGHTS] == weights
    assert time.process_time() - began <= 1.0
    print(f"receipt {len(data)} bytes, adapter {len(weights)}, rebuilt in {time.process_time() - began:.2f} s of CPU")
