"""A published adapter does in PEFT and in stock vLLM what its numbers say: W + (alpha / rank) B A."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from db.contract.spec import AdapterSpec
from tests.waiting import HANG
from tests.worker.adapters.published import adapter, base, spec
from worker.adapters.peft_files import weights
from worker.adapters.publish import publish
from worker.runs import recipes
from worker.runs.replay import Point
from worker.zo.methods.mezo import State

IDS = [3, 50, 120, 7, 301, 44, 9, 210]
TARGETS = {
    "llama": ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"),
    "qwen2": ("q_proj", "down_proj"),
    "opt": ("q_proj", "v_proj", "out_proj", "fc1", "fc2"),
}


def published(arch, tmp_path, layers=()):
    """(base, folder of the published adapter, log-probabilities [tokens - 1] by the definition)."""
    own = base(arch, tmp_path)
    job = spec(arch, rank=4, targets=TARGETS[arch])
    job = job.model_copy(update={"adapter": AdapterSpec(**job.adapter.model_dump(), layers=layers)})
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


@pytest.mark.parametrize("arch", ["llama", "qwen2", "opt"])
def test_peft_loads_one_of_the_last_layers(arch, tmp_path):
    """Its configuration says so itself: nothing is left out, and nothing is made up below."""
    own, folder, merged = published(arch, tmp_path, layers=(1,))
    assert json.loads((Path(folder) / "adapter_config.json").read_text())["layers_to_transform"] == [1]
    bare = AutoModelForCausalLM.from_pretrained(own.source, dtype=torch.float32)
    worn = PeftModel.from_pretrained(bare, folder)
    layers = {name.split("layers.")[1][0] for name, _ in worn.named_modules() if name.endswith("lora_A")}
    assert layers == {"1"}
    assert logprobs(worn) == pytest.approx(merged, abs=1e-4)


INVOCATION = (9, 44)


def activated(arch, tmp_path, targets):
    """(base, folder, spec, ids, their log-probabilities by the definition): the base's keys and values up to the last
    invocation, and merged weights from there on."""
    own = base(arch, tmp_path)
    plain = spec(arch, rank=4, targets=targets)
    adapter_spec = AdapterSpec(**plain.adapter.model_dump() | {"activation": "answer", "invocation": INVOCATION})
    job = plain.model_copy(update={"adapter": adapter_spec})
    params = adapter(job, own)
    folder = publish(tmp_path / "adapters", "ftjob-b", "n", job, own, Point(params, State())).path
    ids = [3, 9, 44, 50, 120, 7, *INVOCATION, 301, 210, 77]
    start = 6
    bare = AutoModelForCausalLM.from_pretrained(own.source, dtype=torch.float32)
    merged = AutoModelForCausalLM.from_pretrained(own.source, dtype=torch.float32)
    layout = recipes.layout(job, own)
    with torch.inference_mode():
        before = bare(torch.tensor([ids[:start]]), use_cache=True)
        for module, a, b in layout.pairs(params):
            merged.get_submodule(module.name).weight += layout.scaling * torch.from_numpy(b @ a)
        after = merged(torch.tensor([ids[start:]]), past_key_values=before.past_key_values)
        logits = torch.cat([before.logits[0], after.logits[0]]).float().log_softmax(-1)
    return own, folder, job, ids, logits[range(len(ids) - 1), ids[1:]].numpy()


@pytest.mark.parametrize("arch", ["llama", "qwen2", "opt"])
def test_peft_activates_it(arch, tmp_path):
    """PEFT finds the last invocation by itself; the first, which is no invocation's end, is not taken."""
    targets = ("q_proj", "v_proj", "out_proj") if arch == "opt" else TARGETS[arch]
    own, folder, _, ids, expected = activated(arch, tmp_path, targets)
    bare = AutoModelForCausalLM.from_pretrained(own.source, dtype=torch.float32)
    worn = PeftModel.from_pretrained(bare, folder)
    assert worn.active_peft_config.alora_invocation_tokens == list(INVOCATION)

    def found() -> np.ndarray:
        with torch.inference_mode():
            rows = torch.log_softmax(worn(torch.tensor([ids])).logits[0].float(), dim=-1)
        return rows[range(len(ids) - 1), ids[1:]].numpy()

    assert found() == pytest.approx(expected, abs=1e-4)
    worn.active_peft_config.alora_invocation_tokens = None
    assert np.abs(found() - expected).max() > 0.1, "acting everywhere must be another model"


def test_an_activated_adapter_has_a_hash_of_its_own(tmp_path):
    """Equal weights, and yet not the same adapter; and it says in words what it is."""
    own, folder, job, _, _ = activated("llama", tmp_path, ("q_proj",))
    plain = spec("llama", rank=4, targets=("q_proj",))
    other = publish(tmp_path / "adapters", "ftjob-a", "n", plain, own, Point(adapter(plain, own), State())).path
    layout = recipes.layout(job, own)
    assert len({weights(layout, adapter(job, own)) for _ in range(20)}) == 1, "the same bytes every time"
    mine, theirs = (load_file(f"{x}/adapter_model.safetensors") for x in (folder, other))
    assert all(torch.equal(mine[name], theirs[name]) for name in theirs)
    hashes = {hashlib.sha256(Path(x, "adapter_model.safetensors").read_bytes()).hexdigest() for x in (folder, other)}
    assert len(hashes) == 2
    assert "cannot be merged" in Path(folder, "README.md").read_text()


def test_stock_vllm_refuses_an_activated_adapter(tmp_path):
    """Rather than serve it as a plain one."""
    from vllm.config import LoRAConfig
    from vllm.lora.peft_helper import PEFTHelper

    _, folder, *_ = activated("llama", tmp_path, ("q_proj",))
    helper = PEFTHelper.from_local_dir(folder, max_position_embeddings=256)
    with pytest.raises(ValueError, match="aLoRA"):
        helper.validate_legal(LoRAConfig(max_lora_rank=8))


VLLM = """
import json, sys, vllm
from vllm.lora.request import LoRARequest
model, folder, ids = json.loads(sys.argv[1])
engine = vllm.LLM(model=model, dtype="float32", enforce_eager=True, enable_lora=True, max_lora_rank=8, max_loras=1,
                  max_model_len=64, enable_prefix_caching=False)
out = engine.generate([{"prompt_token_ids": ids}], vllm.SamplingParams(max_tokens=1, prompt_logprobs=0), use_tqdm=False,
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
    out = subprocess.run(command, env=env, capture_output=True, text=True, timeout=HANG)
    assert out.returncode == 0, out.stderr[-3000:]
    found = next(line for line in out.stdout.splitlines() if line.startswith("FOUND")).partition(" ")[2]
    assert json.loads(found) == pytest.approx(merged.tolist(), abs=1e-4)
