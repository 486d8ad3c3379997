"""An adapter in PEFT's file format, byte for byte the same wherever it is made. Knows no disk, no SQL, no torch."""

import hashlib
import io
import json
import tarfile

import numpy as np
from safetensors.numpy import load, save

from db.contract.spec import AdapterSpec
from worker.types import Layout, Params

WEIGHTS, CONFIG, README = "adapter_model.safetensors", "adapter_config.json", "README.md"


def weights(layout: Layout, params: Params) -> bytes:
    """adapter_model.safetensors: float32 A [rank, inputs] and B [outputs, rank] of each module under PEFT's names.

    Deterministic: safetensors orders tensors by itself and the metadata is fixed, so the SHA-256 names the adapter. An
    invocation is in the metadata too: the hash of an activated adapter is not that of a plain one of equal weights.
    """
    tensors: dict[str, np.ndarray] = {}
    for module, a, b in layout.pairs(params):
        tensors[f"base_model.model.{module.name}.lora_A.weight"] = np.ascontiguousarray(a, dtype="<f4")
        tensors[f"base_model.model.{module.name}.lora_B.weight"] = np.ascontiguousarray(b, dtype="<f4")
    about = {"format": "pt"}
    if not layout.invocation:
        return save(tensors, metadata=about)
    return _ordered(save(tensors, metadata=about | {"alora_invocation_tokens": json.dumps(layout.invocation)}))


def params(layout: Layout, file: bytes) -> Params:
    """What `weights` was made of. Raises ValueError for a file of another layout, and what safetensors does."""
    tensors, flat = load(file), np.zeros(layout.size, dtype=np.float32)
    for module, a, b in layout.pairs(flat):
        for name, mine in (("A", a), ("B", b)):
            found = tensors.pop(f"base_model.model.{module.name}.lora_{name}.weight", None)
            if found is None or found.shape != mine.shape or found.dtype != np.float32:
                raise ValueError(f"it has no lora_{name} of {module.name} as its layout has it")
            mine[:] = found
    if tensors:
        raise ValueError(f"it has {min(tensors)}, which its layout has not")
    return flat


def _ordered(file: bytes) -> bytes:
    """The same safetensors file with its metadata in order: the library writes several entries in a random one."""
    size = int.from_bytes(file[:8], "little")
    header = json.loads(file[8 : 8 + size])
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return len(text).to_bytes(8, "little") + text + file[8 + size :]


def config(adapter: AdapterSpec, base_model: str) -> bytes:
    """adapter_config.json, the fields of peft.LoraConfig that say what the weights mean. With activation `answer` they
    name the invocation: PEFT and llama.cpp act on it, and vLLM refuses to load such an adapter as a plain one."""
    alpha = int(adapter.alpha) if float(adapter.alpha).is_integer() else adapter.alpha
    fields = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": base_model,
        "r": adapter.rank,
        "lora_alpha": alpha,
        "target_modules": sorted(adapter.targets),
        "lora_dropout": 0.0,
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "modules_to_save": None,
        "use_rslora": False,
        "use_dora": False,
    }
    if adapter.layers:
        fields["layers_to_transform"] = list(adapter.layers)
    if adapter.invocation:
        fields["alora_invocation_tokens"] = list(adapter.invocation)
    return (json.dumps(fields, indent=2, sort_keys=True) + "\n").encode()


def readme(adapter: AdapterSpec, base_model: str, title: str, derivatives: bool = False) -> bytes:
    """README.md: what it is, and where it acts."""
    how = "derivatives of its loss" if derivatives else "forward passes only"
    kind = "An activated LoRA (aLoRA)" if adapter.invocation else "A LoRA"
    text = f"# {title}\n\n{kind} adapter for {base_model}, trained by Onward with {how}.\n"
    if adapter.invocation:
        text += (
            f"\nIt acts from the last occurrence of the token ids {list(adapter.invocation)} on, on nothing before: "
            "it cannot be merged into the base model or served as a plain LoRA. PEFT loads it (tested with 0.21).\n"
        )
    return text.encode()


def directory(
    adapter: AdapterSpec, layout: Layout, params: Params, base_model: str, title: str, derivatives: bool = False
) -> dict[str, bytes]:
    """The files of a PEFT directory by name; its method had `derivatives` or forward passes only."""
    return {
        WEIGHTS: weights(layout, params),
        CONFIG: config(adapter, base_model),
        README: readme(adapter, base_model, title, derivatives),
    }


def tar(files: dict[str, bytes]) -> bytes:
    """The files as an uncompressed tar without times, owners or order of arrival: equal files, equal bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for name in sorted(files):
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode, entry.mtime = len(files[name]), 0o644, 0
            archive.addfile(entry, io.BytesIO(files[name]))
    return out.getvalue()


def unpacked(archive: bytes) -> dict[str, bytes]:
    """The files in what `tar` made."""
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:") as found:
        read = {entry.name: found.extractfile(entry) for entry in found.getmembers() if entry.isfile()}
        return {name: stream.read() for name, stream in read.items() if stream is not None}


def sha256(data: bytes) -> str:
    """The hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()
