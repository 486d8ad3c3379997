"""The engine's environment is set whoever imports it, before vLLM reads it."""

import json
import os
import subprocess
import sys

from worker.environment import WANTED

PROGRAM = """
import json, os, sys
import worker.engine.{module}
print(json.dumps([dict(os.environ), "vllm" in sys.modules]))
"""


def imported(module: str, **env: str) -> tuple[dict[str, str], bool]:
    """The environment of a process that has imported this part of the engine, and whether vLLM came with it."""
    clean = {name: value for name, value in os.environ.items() if name not in WANTED} | env
    run = [sys.executable, "-c", PROGRAM.format(module=module)]
    found, vllm = json.loads(subprocess.run(run, env=clean, capture_output=True, text=True, check=True).stdout)
    return found, vllm


def test_any_part_of_the_engine_brings_its_environment_before_vllm_is_there() -> None:
    found, vllm = imported("prompt_cache")
    assert not vllm
    assert {name: found.get(name) for name in WANTED} == WANTED


def test_a_value_from_outside_wins() -> None:
    found, _ = imported("prompt_cache", VLLM_LOGGING_LEVEL="DEBUG")
    assert found["VLLM_LOGGING_LEVEL"] == "DEBUG"
