"""A worker whose dtype or base format cannot be computed does not start, and says why in one sentence."""

import json
import os
import subprocess
import sys

import pytest
from sqlalchemy import select

from db.tables import Worker
from tests.bases import tiny
from tests.quantised import quantised


@pytest.fixture
def ended(factory, urls, redis_url, tmp_path):
    """`python -m worker` on a tiny base, from start to its own end: (status, standard error)."""

    def run(method, **settings):
        path = tiny("llama", tmp_path)
        if method:
            path, _ = quantised(path, "gptq", tmp_path)
            config = json.loads((path / "config.json").read_text())
            config["quantization_config"]["quant_method"] = method
            (path / "config.json").write_text(json.dumps(config))
        environment = os.environ | {
            "ONWARD_DATABASE_URL": urls.worker_url,
            "ONWARD_REDIS_URL": redis_url,
            "ONWARD_HOME": str(tmp_path / "home"),
            "ONWARD_MODEL": "tiny",
            "ONWARD_MODELS": json.dumps({"tiny": str(path)}),
            "HF_HUB_OFFLINE": "1",
        }
        environment |= {f"ONWARD_{name.upper()}": value for name, value in settings.items()}
        command = [sys.executable, "-m", "worker"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
        with factory() as session:
            assert set(session.scalars(select(Worker.state))) == {"gone"}
        return done.returncode, done.stderr

    return run


@pytest.mark.parametrize(
    ("scorer", "dtype", "method", "why"),
    [
        ("vllm", "bf16", None, "'bf16' is no dtype of an engine: ONWARD_DTYPE is one of float32, "),
        ("torch", "float64", None, "'float64' is no dtype of an engine: ONWARD_DTYPE is one of float32, "),
        ("vllm", "float32", "mxfp4", "cannot score a mxfp4 base on a CPU: vLLM has no CPU kernel for 'mxfp4' linears"),
        ("torch", "float32", "mxfp4", "cannot read a checkpoint quantised as 'mxfp4'"),
    ],
)
def test_a_worker_that_cannot_compute_ends_with_one_sentence(ended, scorer, dtype, method, why):
    status, said = ended(method, scorer=scorer, dtype=dtype)
    assert status == 2
    assert "Traceback" not in said
    assert [line for line in said.splitlines() if line.startswith("the worker does not start: ")] == [
        line for line in said.splitlines() if why in line
    ]
    assert why in said
