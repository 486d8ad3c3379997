"""`python -m bench.sections.gpu`: the same code on a CUDA device, contenders in turn.

The models are OPT of the published sizes with random weights.

The authors of arXiv 2605.28760 timed batches of 16 to 128 SST-2 sentences on a GPU they do not name; their seconds
(LOZO, rank 2, classification, June) stand beside ours. Weights are random: speed does not depend on what they say. With
`--device cpu --sizes tiny` it runs anywhere, which says that it runs and nothing about a GPU.
"""

import argparse
import gc
import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.report.measure import RESULTS

COMMITTED = RESULTS / "gpu.json"
BATCHES = (16, 32, 64, 128)


@dataclass(frozen=True)
class Size:
    """An OPT shape, and the authors' seconds a step (official LOZO, theirs) by batch."""

    hidden: int
    layers: int
    heads: int
    theirs: tuple[tuple[float, float], ...] = ()


SIZES = {
    "tiny": Size(64, 2, 2),
    "1.3b": Size(2048, 24, 32, ((0.1028, 0.0374), (0.1169, 0.0421), (0.1848, 0.0600), (0.3328, 0.1143))),
    "2.7b": Size(2560, 32, 32, ((0.1292, 0.0479), (0.1933, 0.0545), (0.3128, 0.0976), (0.5824, 0.1861))),
    "6.7b": Size(4096, 32, 32, ((0.3671, 0.0554), (0.4902, 0.0990), (0.7731, 0.1844), (1.3863, 0.3690))),
    "13b": Size(5120, 40, 40, ((0.7261, 0.0931), (0.9606, 0.1721), (1.5043, 0.3331), (2.6444, 0.6646))),
}


def made(name: str, home: Path, dtype: str) -> Path:
    """The folder of an OPT of this size with random weights in `dtype` and the demo's tokenizer, made on first call."""
    import shutil

    import torch
    from transformers import OPTConfig, OPTForCausalLM

    from cli.local.demo_model import demo_model

    folder = home / "models" / f"opt-{name}-random-{dtype}"
    if (folder / "config.json").exists():
        return folder
    size = SIZES[name]
    torch.manual_seed(0)
    torch.set_default_dtype(getattr(torch, dtype))
    config = OPTConfig(
        hidden_size=size.hidden,
        word_embed_proj_dim=size.hidden,
        ffn_dim=4 * size.hidden,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
    )
    OPTForCausalLM(config).save_pretrained(folder)
    torch.set_default_dtype(torch.float32)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(demo_model(home) / file, folder / file)
    return folder


def measure(name: str, folder: Path, dtype: str, device: str, rounds: int, batches: list[int]) -> dict[str, Any]:
    """Seconds a step of every contender, by activation and batch, on one resident model and engine."""
    from bench.contenders.loops import placed
    from bench.report.measure import Floor
    from bench.sections.compare import Resident, measure
    from bench.workloads import CACHED, ENGINE, OFFICIAL, STRONG, Workload
    from db.contract.tokens.base_model import open_base

    base = open_base(f"opt-{name}", str(folder))
    found: dict[str, Any] = {}
    with placed(device, dtype):
        resident, floor = Resident(base, dtype), Floor(device, dtype)
        _ = resident.scorer  # first: vLLM does not start on a GPU that loops have filled by more than a tenth
        for activation, who in (("all", (OFFICIAL, STRONG, ENGINE)), ("answer", (OFFICIAL, CACHED, ENGINE))):
            for batch, theirs in zip(BATCHES, SIZES[name].theirs or ((0.0, 0.0),) * len(BATCHES), strict=True):
                if batch not in batches:
                    continue
                w = Workload(f"{activation}, batch {batch}", method="mezo", batch=batch, rank=2, rounds=rounds, who=who)
                w = replace(w, activation="answer" if activation == "answer" else "all", model=base.name)
                found[w.name] = measure(w, resident, floor, rounds)
                gc.collect()  # the official loop's model is held by a cycle
                if activation == "all" and theirs[0]:
                    found[w.name]["authors' seconds a step"] = {"official LOZO": theirs[0], "theirs": theirs[1]}
                print(
                    name, w.name, {k: v["seconds a step"] for k, v in found[w.name]["contenders"].items()}, flush=True
                )
        resident.close()
    return found


def _device(asked: str) -> str:
    """The device by its maker's name, where it has one."""
    import torch

    return str(torch.cuda.get_device_name(asked)) if asked.startswith("cuda") else asked


def main() -> None:
    """Measures every size asked for and writes the JSON after each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", nargs="+", choices=tuple(SIZES), default=["1.3b", "2.7b", "6.7b", "13b"])
    parser.add_argument("--batches", nargs="+", type=int, choices=BATCHES, default=list(BATCHES))
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--dtype", default="float16")
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--home", type=Path, default=Path(".onward"))
    parser.add_argument("--out", type=Path, default=COMMITTED)
    asked = parser.parse_args()
    from worker.environment import prepare

    prepare(0, "bench.sections.gpu")
    from bench.report.measure import machine

    found: dict[str, Any] = {"device": _device(asked.device), "dtype": asked.dtype, "machine": machine()}
    for name in asked.sizes:
        folder = made(name, asked.home, asked.dtype)
        found[name] = measure(name, folder, asked.dtype, asked.device, asked.rounds, asked.batches)
        asked.out.parent.mkdir(parents=True, exist_ok=True)
        asked.out.write_text(json.dumps(found, indent=1) + "\n")
    print(f"written to {asked.out}")


if __name__ == "__main__":
    main()
