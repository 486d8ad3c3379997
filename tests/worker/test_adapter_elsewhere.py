"""A published adapter does in PEFT and in stock vLLM what its numbers say: W + (alpha / rank) B A."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM

from tests.worker.adapters import adapter, base, spec
from worker import recipes
from worker.checkpoints import Point, publish
from worker.zo.base import State

IDS = [3, 50, 120, 7, 301, 44, 9, 210]
TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "down_proj"),
    "opt": ("q_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


def published(arch, tmp_path):
    """(base, folder of the published adapter, log-probabilities [tokens - 1] by the definition)."""
    own = base(arch, tmp_path)
    job = spec(arch, rank=4, targets=TARGETS[arch])
    params = adapter(job, own)
    folder = publish(tmp_path / "adapters", "ftjob-a", "n", job, own, Point(params, State())).path
    model = AutoModelForCausalLM.from_pretrained(own.source, dtype=torch.float32)
    bare = logprobs(model)
    layout = recipes.layout(job, own)
    with torch.no_grad():
        for module, a, b in layout.pairs(params):
            model.get_submodule(module.name).weight += layout.scaling * torch.from_numpy(b @ a)
    merged = logprobs(model)
    assert np.abs(merged - bare).max() > 0.1  # the adapter matters, or equality would say nothing
    return own, folder, merged


def logprobs(model) -> np.ndarray:
    with torch.inference_mode():
        rows = torch.log_softmax(model(torch.tensor([IDS])).logits[0].float(), dim=-1)
    return rows[range(len(IDS) - 1), IDS[1:]].numpy()


@pytest.mark.parametrize("arch", ["llama", "qwen2", "opt"])
def test_peft_loads_it(arch, tmp_path):
    own, folder, merged = published(arch, tmp_path)
    bare = AutoModelForCausalLM.from_pretrained(own.source, dtype=torch.float32)
    worn = PeftModel.from_pretrained(bare, folder)
    assert logprobs(worn) == pytest.approx(merged, abs=1e-4)


VLLM = """
import json, sys, vllm
from vllm.lora.request import LoRARequest
model, folder, ids = json.loads(sys.argv[1])
engine = vllm.LLM(model=model, dtype="float32", enforce_eager=True, enable_lora=True, max_lora_rank=8, max_loras=1,
                  max_model_len=64, enable_prefix_caching=False)
out = engine.generate([{"prompt_token_ids": ids}], vllm.SamplingParams(max_tokens=1, prompt_logprobs=0),
                      lora_request=LoRARequest("a", 1, folder))
found = [row[i].logprob for row, i in zip(out[0].prompt_logprobs[1:], ids[1:], strict=True)]
print("FOUND", json.dumps(found))
"""


def test_stock_vllm_serves_it(tmp_path):
    own, folder, merged = published("llama", tmp_path)
    env = os.environ | {
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_NO_USAGE_STATS": "1",
        "HF_HUB_OFFLINE": "1",
    }
    command = [sys.executable, "-c", VLLM, json.dumps([own.source, folder, IDS])]
    out = subprocess.run(command, env=env, capture_output=True, text=True, timeout=300)
    assert out.returncode == 0, out.stderr[-3000:]
    found = next(line for line in out.stdout.splitlines() if line.startswith("FOUND")).partition(" ")[2]
    assert json.loads(found) == pytest.approx(merged.tolist(), abs=1e-4)
