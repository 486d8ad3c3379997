"""What the engine wants of the process before vLLM is imported: said here only. Knows environment variables, not the
engine."""

import os
import sys
from pathlib import Path

# One process owns the engine (design), nothing is reported home, and OpenMP threads sleep between the engine's calls
# instead of spinning on the cores that noise and SQL need. A value set from outside wins.
WANTED = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CONFIGURE_LOGGING": "0",  # its warnings come in this process's format
    "VLLM_LOGGING_LEVEL": "WARNING",  # where one asks it to speak for itself after all
    "KMP_BLOCKTIME": "5",
    "KMP_TPAUSE": "0",
    "OMP_PROC_BIND": "false",  # Intel's OpenMP binds what this process forks to one core (bench/NOTES.md)
    "TOKENIZERS_PARALLELISM": "false",
}
RELOADED = "ONWARD_OPENMP_LOADED"


def set_wanted() -> None:
    """Set what is wanted and not set. Importing `worker.engine` does it too, for whoever starts without `prepare`."""
    for name, value in WANTED.items():
        os.environ.setdefault(name, value)


def prepare(threads: int, module: str = "worker") -> None:
    """Set the environment; where the interpreter's own Intel OpenMP is found, start this process anew with it loaded.

    The engine's choice of OpenMP changed noise generation tenfold (measured), and a library can be put before torch's
    own only by LD_PRELOAD, which the loader reads at exec. `threads` > 0 bounds the compute threads;
    `module` is what `python -m` runs anew.
    """
    set_wanted()
    if not sys.stderr.isatty():
        for name in ("TQDM_DISABLE", "HF_HUB_DISABLE_PROGRESS_BARS"):  # bars are for people
            os.environ.setdefault(name, "1")
    if threads:
        os.environ["OMP_NUM_THREADS"] = str(threads)
    library = Path(sys.prefix) / "lib" / "libiomp5.so"
    preload = os.environ.get("LD_PRELOAD", "")
    if RELOADED in os.environ or not library.exists() or "libiomp5" in preload:
        return
    os.environ[RELOADED] = "1"
    os.environ["LD_PRELOAD"] = f"{library}:{preload}".rstrip(":")
    os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])
