"""What a processor computes is found by trying, at this machine's level and, in another process, at a lower one."""

import json
import os
import subprocess
import sys

import pytest
import torch
from torch.nn import functional as F

from tests.capability import need
from worker.engine import kernels, processor, weights
from worker.types import CannotCompute

LOWER = {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2"}


def saturating(x, w):
    """int8 products whose neighbours are added in 16 bits first, as without VNNI."""
    codes = [(t.float() * 64).round().int() for t in (x, w)]
    pairs = ((codes[0] + 128)[:, None] * codes[1][None]).unflatten(-1, (-1, 2)).sum(-1).clamp(-(1 << 15), (1 << 15) - 1)
    return ((pairs.sum(-1) - 128 * codes[1].sum(-1)) / 4096).to(x.dtype)


def refusing(x, w):
    raise RuntimeError("no such instruction\nand where")


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_a_right_product_is_taken_and_a_wrong_or_refused_one_is_named(dtype):
    kind = processor.named(dtype)
    processor.require(dtype)
    processor.require(dtype, kernels.multiply)
    assert "off by" in processor.fault(saturating, kind)
    assert "off by" in processor.fault(lambda x, w: F.linear(x, w) * float("nan"), kind)
    with pytest.raises(CannotCompute, match=f"this processor .* does not compute {dtype}: no such instruction$"):
        processor.require(dtype, refusing)


def test_a_name_that_is_no_dtype_is_refused():
    for name in ("bf16", "float64", "int8", "load"):
        with pytest.raises(CannotCompute, match=f"'{name}' is no dtype of an engine"):
            processor.named(name)


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16])
def test_what_is_packed_multiplies_as_what_is_not(kind):
    need(processor.why_unpacked(kind))
    x, w = (torch.randn(n, 96, generator=torch.Generator().manual_seed(n)).to(kind) for n in (5, 40))
    packed = processor._packed(x, w).double()
    torch.testing.assert_close(packed, x.double() @ w.double().T, rtol=0, atol=20 * processor.FINE[kind])


def test_vllms_int8_product_equals_ours_where_it_is_right():
    need(weights.int8_fault(torch.float32) and f"vLLM's int8 kernel: {weights.int8_fault(torch.float32)}")
    x, w = processor.case()
    torch.testing.assert_close(weights._int8_product(x, w), F.linear(x, w), rtol=1e-5, atol=1e-4)


def test_a_lower_level_is_found_and_everything_is_right_there(tmp_path):
    """On a machine that can do more: the same right losses, by the slower paths."""
    need(None if torch.cpu._is_avx2_supported() else "no AVX2, of which to leave the better levels unused")
    environment = {k: v for k, v in os.environ.items() if k not in ("LD_PRELOAD", "ONWARD_OPENMP_LOADED")} | LOWER
    command = [sys.executable, "-m", "tests.worker.engine.lowered", str(tmp_path)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["level"].startswith("AVX2, oneDNN packs float32")
    assert found["unpacked"]["torch.float32"] is None
    assert set(found["plain"].values()) == {None}
    assert not found["int4"], "vLLM's build for AVX-512 was loaded all the same"
    assert "bf16 path needs the cpu support" in (found["unpacked"]["torch.bfloat16"] or "")
    assert "off by" in (found["int8"] or "")
    off = found["off"]
    assert off["plain"] < 1e-4
    assert off["w4a16"] < 3e-2  # in float16
    assert max(off["w8a8"], off["fp8"]) < 0.1  # a value near a tie may be rounded the other way
