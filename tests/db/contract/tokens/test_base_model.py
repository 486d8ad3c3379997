"""A base model as the contract sees it is the model that transformers builds and tokenises for."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GPT2Config,
    LlamaConfig,
    OPTConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from db.contract.tokens.architectures import linears
from db.contract.tokens.base_model import Base, UnknownBase, UnknownTarget, UnusableBase, load, open_base
from tests.bases import tiny, tokenizer
from tests.db.contract.conftest import fast_tokenizer
from tests.waiting import HANG

CONFIGS = {
    "llama": LlamaConfig(num_hidden_layers=2),
    "llama, grouped queries": LlamaConfig(
        num_hidden_layers=3, hidden_size=96, num_attention_heads=6, num_key_value_heads=2
    ),
    "llama, own head size": LlamaConfig(num_hidden_layers=2, hidden_size=96, num_attention_heads=4, head_dim=40),
    "qwen2": Qwen2Config(num_hidden_layers=2),
    "qwen2, grouped queries": Qwen2Config(
        num_hidden_layers=11, hidden_size=56, num_attention_heads=14, num_key_value_heads=2
    ),
    "opt": OPTConfig(),
    "opt, projected embeddings": OPTConfig(
        num_hidden_layers=2, hidden_size=64, ffn_dim=96, word_embed_proj_dim=32, num_attention_heads=4
    ),
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_linears_are_those_of_transformers_in_its_order(config, tmp_path):
    config.save_pretrained(tmp_path)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    real = [
        (name, module.in_features, module.out_features)
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear) and ".layers." in name
    ]
    assert linears(json.loads((tmp_path / "config.json").read_text())) == tuple(real)
    assert all(f"{name}.weight" in model.state_dict() for name, _, _ in real)


def test_context_and_vocabulary(base: Base):
    model = AutoModelForCausalLM.from_pretrained(base.path)
    assert base.vocab == model.get_input_embeddings().weight.shape[0]
    assert base.context == model.config.max_position_embeddings
    assert base.architecture == model.config.model_type


TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=200) | st.lists(
    st.sampled_from(["the film", " was", "\n", " ", "  ", "</s>", "<|end|>", "great", "é", "日本", "🙂", "\t", "a."])
).map("".join)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=TEXTS)
def test_ids_are_those_of_the_fast_tokenizer(base: Base, text: str):
    assert base.encode(text) == fast_tokenizer(base.path)(text)["input_ids"]


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(text=TEXTS)
def test_ids_of_the_demo_model(demo_folder: Path, text: str):
    base = open_base("smollm2-135m", str(demo_folder))
    assert base.encode(text) == fast_tokenizer(demo_folder)(text)["input_ids"]


def test_opt_begins_with_its_own_end_token(tiny_bases):
    assert tiny_bases["opt"].prefix == (2,)
    assert tiny_bases["llama"].prefix == (0,)
    assert tiny_bases["qwen2"].prefix == ()


@pytest.mark.parametrize("add_bos", [True, False])
def test_an_explicit_add_bos_token_is_obeyed(add_bos: bool, folders, tmp_path):
    shutil.copytree(folders["llama"], tmp_path / "m")
    kept = tokenizer("llama")
    PreTrainedTokenizerFast(
        tokenizer_object=kept.backend_tokenizer, bos_token="<s>", eos_token="</s>", add_bos_token=add_bos
    ).save_pretrained(tmp_path / "m")
    ids = AutoTokenizer.from_pretrained(tmp_path / "m")("the film")["input_ids"]
    base = open_base("explicit", str(tmp_path / "m"))
    assert base.encode("the film") == ids
    assert base.prefix == ((0,) if add_bos else ())


def test_select_matches_whole_parts_in_model_order(llama: Base):
    names = [name for name, _, _ in llama.select(("v_proj", "self_attn.q_proj"))]
    assert names == [f"model.layers.{i}.self_attn.{p}_proj" for i in range(2) for p in "qv"]
    assert llama.select(("model.layers.1.mlp.down_proj",)) == (("model.layers.1.mlp.down_proj", 128, 64),)
    with pytest.raises(UnknownTarget, match=r"no module 'proj'; it has q_proj, k_proj, v_proj, o_proj"):
        llama.select(("q_proj", "proj"))
    with pytest.raises(UnknownTarget, match="fc1"):
        llama.select(("fc1",))


def _edit(path: Path, **changes: object) -> None:
    value = json.loads(path.read_text())
    path.write_text(json.dumps({k: v for k, v in {**value, **changes}.items() if v is not None}))


@pytest.mark.parametrize(
    "spoil, reason",
    [
        (lambda p: _edit(p / "config.json", auto_map={"AutoModel": "x.Y"}), "brings its own code"),
        (lambda p: _edit(p / "tokenizer_config.json", auto_map={"AutoTokenizer": "x.Y"}), "brings its own code"),
        (lambda p: _edit(p / "config.json", model_type="mixtral"), "'mixtral' is not supported; llama, qwen2, opt"),
        (lambda p: _edit(p / "config.json", model_type=None), "None is not supported"),
        (lambda p: _edit(p / "config.json", hidden_size=None), "hidden_size"),
        (lambda p: _edit(p / "config.json", hidden_size="wide"), "wide"),
        (lambda p: _edit(p / "config.json", max_position_embeddings=None), "max_position_embeddings"),
        (lambda p: (p / "tokenizer.json").unlink(), "no tokenizer.json"),
        (lambda p: (p / "tokenizer.json").write_text("{}"), "tokenizer.json cannot be read"),
        (lambda p: (p / "config.json").unlink(), "no config.json"),
        (lambda p: (p / "config.json").write_text("{"), "config.json is not JSON"),
        (lambda p: (p / "config.json").write_text("[]"), "not a JSON object"),
        (lambda p: shutil.rmtree(p), "there is no folder"),
    ],
)
def test_an_unusable_base_says_why(spoil, reason: str, folders, tmp_path):
    shutil.copytree(folders["llama"], tmp_path / "m")
    spoil(tmp_path / "m")
    with pytest.raises(UnusableBase, match=reason):
        open_base("spoilt", str(tmp_path / "m"))


def test_unsupported_real_config(tmp_path):
    GPT2Config().save_pretrained(tmp_path)
    with pytest.raises(UnusableBase, match="gpt2"):
        open_base("gpt2", str(tmp_path))


def test_load_knows_only_configured_names(folders):
    settings = SimpleNamespace(models={"mine": str(folders["opt"])})
    assert load("mine", settings) is load("mine", settings)
    with pytest.raises(UnknownBase, match="yours"):
        load("yours", settings)


def _python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, **env}, capture_output=True, text=True, timeout=HANG
    )


def test_a_hub_id_is_found_in_the_local_cache_when_offline(folders, tmp_path):
    repo = tmp_path / "hub" / "models--someone--tiny"
    shutil.copytree(folders["llama"], repo / "snapshots" / "abc123", ignore=shutil.ignore_patterns("*.safetensors"))
    (repo / "refs").mkdir()
    (repo / "refs" / "main").write_text("abc123")
    code = (
        "from db.contract.tokens.base_model import open_base; b = open_base('t', 'someone/{}'); "
        "print(b.source, b.encode('the film'))"
    )
    env = {"HF_HOME": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    found = _python(code.format("tiny"), **env)
    expected = open_base("tiny-llama", str(folders["llama"])).encode("the film")
    assert found.stdout.strip() == f"someone/tiny {expected}", found.stderr
    missing = _python(code.format("other"), **env)
    assert missing.returncode == 1
    assert "UnusableBase: t: someone/other is no folder and cannot be had from the hub" in missing.stderr


def test_the_contract_loads_no_model_code():
    code = (
        "import importlib, pkgutil, sys, db.contract, worker.runs.data\n"
        "for found in pkgutil.walk_packages(db.contract.__path__, 'db.contract.'):\n"
        "    importlib.import_module(found.name)\n"
        "print([m for m in ('torch', 'transformers', 'vllm', 'peft', 'sqlalchemy', 'celery') if m in sys.modules])"
    )
    assert _python(code).stdout.strip() == "[]"


def test_opts_mlp_can_only_be_acted_on_everywhere(tmp_path):
    base = open_base("tiny-opt", str(tiny("opt", tmp_path)))
    assert base.everywhere_only(("q_proj", "out_proj")) == ()
    assert base.everywhere_only(("q_proj", "fc2")) == tuple(f"model.decoder.layers.{i}.fc2" for i in range(2))
    llama = open_base("tiny-llama", str(tiny("llama", tmp_path)))
    assert llama.everywhere_only(llama.targets) == ()


def test_of_some_layers_only_their_modules_are_selected(llama: Base):
    assert llama.depth == 2
    assert [name for name, _, _ in llama.select(("q_proj",), (1,))] == ["model.layers.1.self_attn.q_proj"]
    with pytest.raises(UnknownTarget):
        llama.select(("model.layers.0.self_attn.q_proj",), (1,))
