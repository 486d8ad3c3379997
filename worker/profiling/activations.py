"""The directions that the inputs of modules span most, over rows. Knows a transformers model, no file."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from worker.types import Example, Layout

F64 = NDArray[np.float64]


def basis(model: Any, layout: Layout, examples: Sequence[Example]) -> dict[str, NDArray[np.float32]]:
    """For each module of the layout the leading right singular directions of its inputs [tokens, inputs], as rows
    float32 [rank, inputs]: not centred, each with its largest entry above 0. Every token that an adapter would act on
    counts once: those before an example's `start` do not, nor does what its sequences share a second time.

    Raises ValueError where the rows have fewer different inputs than the rank."""
    grams = _grams(model, layout, examples)
    return {module.name: directions(grams[module.name], layout.rank, module.name) for module in layout.modules}


def directions(gram: F64, rank: int, name: str = "it") -> NDArray[np.float32]:
    """The eigenvectors of the `rank` largest eigenvalues of X^T X, which are X's leading right singular vectors."""
    values, vectors = np.linalg.eigh(gram)
    if values[-rank] <= values[-1] * len(gram) * np.finfo(np.float64).eps:
        raise ValueError(
            f"the inputs of {name} span fewer than {rank} directions: take more rows, a lower rank, or without an "
            "invocation all tokens"
        )
    found = vectors[:, ::-1][:, :rank].T
    signs = np.sign(np.take_along_axis(found, np.abs(found).argmax(1)[:, None], 1))
    rows: NDArray[np.float32] = (found * signs).astype(np.float32)
    return rows


def _grams(model: Any, layout: Layout, examples: Sequence[Example]) -> dict[str, F64]:
    """X^T X of each module's inputs, float64 [inputs, inputs]."""
    grams = {module.name: torch.zeros(module.inputs, module.inputs, dtype=torch.float64) for module in layout.modules}
    since = 0

    def added(name: str) -> Callable[[Any, tuple[torch.Tensor, ...]], None]:
        def hook(_: Any, args: tuple[torch.Tensor, ...]) -> None:
            x = args[0].flatten(0, -2)[since:].double()
            grams[name] += x.T @ x

        return hook

    hooks = [model.get_submodule(name).register_forward_pre_hook(added(name)) for name in grams]
    try:
        with torch.inference_mode():
            for example in examples:
                for number, ids in enumerate(example.sequences):
                    since = max(example.start, example.shared if number else 0)
                    model(input_ids=torch.from_numpy(ids).long()[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    return {name: gram.numpy() for name, gram in grams.items()}
