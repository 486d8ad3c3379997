"""`onward receipts`: from a file and a base's folder alone; with the service where it is asked."""

import json
import os

import pytest
from typer.testing import CliRunner

from cli.local import receipt_key
from cli.main import app
from db import files
from db.contract.receipts import signing
from db.tables import Result
from tests.api.conftest import serving
from tests.cli.conftest import complaint, read
from tests.cli.trained import train
from tests.worker.adapters.received import KEY, OTHER_KEY, ROWS, STEPS, trained
from worker.slices.receipts import Receipts

PUBLIC, OTHER = signing.public_of(KEY), signing.public_of(OTHER_KEY)
WEIGHTS = "adapter_model.safetensors"


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    return trained(tmp_path_factory.mktemp("base"))


@pytest.fixture
def alone(made, monkeypatch, tmp_path):
    """Runs a command beside receipt.json and rows.jsonl, with no service, database or account."""
    for name in [name for name in os.environ if name.startswith("ONWARD_")]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "receipt.json").write_bytes(made.receipt())
    (tmp_path / "unsigned.json").write_bytes(made.receipt(None))
    (tmp_path / "rows.jsonl").write_bytes(ROWS)

    def run(verb, *words, ok=True, receipt="receipt.json"):
        result = CliRunner().invoke(app, ["receipts", verb, receipt, "--base", str(made.folder), *words])
        assert (result.exit_code == 0) == ok, result.output
        return result

    return run


def test_rebuild_writes_a_peft_folder_or_nothing(alone, made, tmp_path):
    said = read(alone("rebuild", "--out", "adapter", "--key", PUBLIC, "--json"))
    assert (said["path"], said["step"], said["base_weights"]) == ("adapter", STEPS, True)
    assert said["signature"] == f"signed by {signing.key_id(PUBLIC)}"
    assert (tmp_path / "adapter" / WEIGHTS).read_bytes() == made.weights
    assert json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())["lora_alpha"] == 4
    assert "not empty" in complaint(alone("rebuild", "--out", "adapter", ok=False))
    assert "refused (unknown_key)" in complaint(alone("rebuild", "--key", OTHER, ok=False))
    assert "refused (unsigned)" in complaint(alone("rebuild", "--key", PUBLIC, ok=False, receipt="unsigned.json"))
    assert "64 hexadecimal digits" in complaint(alone("rebuild", "--key", "nokey", ok=False))
    assert not (tmp_path / made.told[0].job).exists()
    assert f"equal hash {said['sha256']}; unsigned" in alone("rebuild", receipt="unsigned.json").stdout
    assert (tmp_path / made.told[0].job / WEIGHTS).read_bytes() == made.weights


def test_verify_compares_an_adapter_too(alone, tmp_path):
    alone("rebuild", "--out", "adapter")
    assert "not checked: give --key" in alone("verify", "--adapter", "adapter").stdout
    alone("verify", "--adapter", f"adapter/{WEIGHTS}")
    config = tmp_path / "adapter" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 4', '"lora_alpha": 8'))
    assert "refused (hash)" in complaint(alone("verify", "--adapter", "adapter", ok=False))
    (tmp_path / "receipt.json").write_bytes((tmp_path / "receipt.json").read_bytes()[:-20])
    assert "refused (truncated)" in complaint(alone("verify", ok=False))


def test_an_audit_scores_steps_again(alone, tmp_path, made):
    audit = ("audit", "--rows", "rows.jsonl", "--engine", "torch")
    said = read(alone(*audit, "--sample", "3", "--seed", "1", "--json"))["audit"]
    assert (said["steps"], said["sample"], said["floor"], said["engine"]) == (STEPS, 3, 1e-4, "torch")
    assert said["largest"] < 1e-5
    assert said["chance"] == pytest.approx(3 / STEPS)  # 5 % of 8 steps is one
    assert (
        "noise floor 0.0001; where 5% of the steps are forged, such a sample finds it with 100.0%"
        in alone(*audit).stdout
    )
    (tmp_path / "rows.jsonl").write_bytes(ROWS.replace(b"film 3", b"film 4"))
    assert "refused (foreign_rows)" in complaint(alone(*audit, ok=False))


def test_a_key_is_made_once_and_only_its_owner_reads_it(tmp_path, alone):
    file = tmp_path / "receipt_key"
    said = read(CliRunner().invoke(app, ["receipts", "key", str(file), "--json"]))
    assert said == {"id": signing.key_id(said["public"]), "public": said["public"]}
    assert file.stat().st_mode & 0o777 == 0o600
    assert signing.public_of(file.read_text()) == said["public"]
    assert said["public"] in CliRunner().invoke(app, ["receipts", "key", str(file)]).stdout
    file.write_text("not a key")
    result = CliRunner().invoke(app, ["receipts", "key", str(file)])
    assert "64 hexadecimal digits" in complaint(result)
    assert "not a key" not in result.stderr


def test_a_home_has_a_key_of_its_own_unless_one_is_given(tmp_path, monkeypatch):
    monkeypatch.delenv("ONWARD_RECEIPT_KEY", raising=False)
    monkeypatch.delenv("ONWARD_SECRETS_DIR", raising=False)
    signs, signers = receipt_key.of_home(tmp_path)
    assert signing.public_of(signs["ONWARD_RECEIPT_KEY"]) == signers["ONWARD_RECEIPT_SIGNERS"]
    assert receipt_key.of_home(tmp_path) == (signs, signers)
    monkeypatch.setenv("ONWARD_SECRETS_DIR", str(tmp_path))
    (tmp_path / "onward_receipt_key").write_text(KEY)
    assert receipt_key.of_home(tmp_path) == ({}, {})


def test_a_tenant_asks_the_service(onward, monkeypatch, anna, factory, base_folder, settings, tmp_path):
    job = train(anna, factory, base_folder, tmp_path, Receipts({}, KEY))
    with factory.begin() as session:
        kept = session.get_one(Result, (job.id, "receipt")).file_id
        data = b"".join(files.read(session, kept))
    (tmp_path / "receipt.json").write_bytes(data)
    words = ("receipts", "verify", str(tmp_path / "receipt.json"), "--base", str(base_folder), "--service")
    with serving(settings.model_copy(update={"receipt_signers": PUBLIC})) as url:
        monkeypatch.setenv("ONWARD_BASE_URL", url)
        said = read(onward(*words, "--json"))
        assert (said["service"], said["signature"]) == (True, f"signed by {signing.key_id(PUBLIC)}")
        assert said["sha256"] == job.onward["adapter"]["sha256"]
        monkeypatch.setenv("ONWARD_API_KEY", anna.secret)
        with factory.begin() as session:
            session.delete(session.get_one(Result, (job.id, "receipt")))
        assert read(onward(*words, "--json"))["service"] is True
    with serving(settings.model_copy(update={"receipt_signers": OTHER})) as url:
        monkeypatch.setenv("ONWARD_BASE_URL", url)
        assert "refused (unknown_key)" in complaint(onward(*words, ok=False))
