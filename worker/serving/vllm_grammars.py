"""Answers held to a schema: one backend of vLLM's, and an import that vLLM makes in vain. Knows no schema."""

import sys
from importlib.util import find_spec
from types import ModuleType
from typing import NoReturn

UNUSED = "vllm.v1.structured_output.backend_lm_format_enforcer"


def install() -> None:
    """vLLM imports each of its backends before it asks which one is meant; this one's library is not installed, for the
    engine is started with xgrammar and with no other to fall back to (`worker.engine.start`)."""
    if find_spec("lmformatenforcer") is None and UNUSED not in sys.modules:
        unused = ModuleType(UNUSED)
        unused.validate_structured_output_request_lm_format_enforcer = _refuse  # type: ignore[attr-defined]
        sys.modules[UNUSED] = unused


def _refuse(*_: object) -> NoReturn:
    raise NotImplementedError("lm-format-enforcer is not installed")
