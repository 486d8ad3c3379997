"""The first process of a container hears only the signals that it has asked for: SIGTERM from its first moment on."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.waiting import HANG, until


def catches(pid: int, number: signal.Signals) -> bool:
    """Whether the process has a handler of its own for the signal."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except FileNotFoundError:
        return False
    (mask,) = [int(line.split()[1], 16) for line in lines if line.startswith("SigCgt:")]
    return bool(mask >> (number - 1) & 1)


@pytest.mark.parametrize("program", ["api", "worker"])
def test_a_process_that_is_told_to_end_while_it_loads_ends_at_once(tmp_path, program):
    environment = os.environ | {
        "ONWARD_DATABASE_URL": f"postgresql+psycopg://onward@127.0.0.1:{free_port()}/onward",
        "ONWARD_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0",
        "ONWARD_HOME": str(tmp_path),
        "ONWARD_MODEL": "tiny",
        "ONWARD_MODELS": json.dumps({"tiny": str(tmp_path)}),
        "ONWARD_PORT": str(free_port()),
    }
    process = subprocess.Popen([sys.executable, "-m", program], env=environment)
    try:
        until(lambda: catches(process.pid, signal.SIGTERM) or process.poll() is not None, "a handler of SIGTERM")
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG) == 128 + signal.SIGTERM
    finally:
        process.kill()
        process.wait()
