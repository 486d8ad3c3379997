"""What a started process shows from outside: when it answers, what it has mapped, what it can write. Knows no image."""

import json
import re
import subprocess
import time
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from tests.waiting import HANG, until

# Libraries of the system that python:3.11-slim-bookworm has: glibc's, the compiler's, and what its Python links to.
SLIM = re.compile(
    r"(ld-linux-x86-64|libc|libm|libdl|libpthread|librt|libutil|libresolv|libnss_\w+|libgcc_s|libstdc\+\+|libz|libffi"
    r"|libssl|libcrypto|libsqlite3|liblzma|libbz2|libuuid|libexpat|libncursesw?|libtinfo|libreadline|libnsl|libcrypt"
    r"|libgdbm|libdb-\d\.\d|libtirpc|libmpdec|libcap|libpython3\.\d\d)[.-]"
)
# What the Debian packages that a Dockerfile installs add to it.
BROUGHT_BY = {"libnuma1": "libnuma.so.1"}


def ready_after(child: "subprocess.Popen[bytes]", url: str, log: Path) -> float:
    """Seconds until `url` answers 200, from now. Fails with the log's end where the process ends or hangs."""
    began = time.monotonic()

    def ready() -> bool:
        assert child.poll() is None, f"ended with {child.returncode}\n{log.read_text()[-4000:]}"
        return status(url) == 200

    until(ready, lambda: log.read_text()[-4000:])
    return time.monotonic() - began


def status(url: str) -> int:
    """The answer's status; 0 where nobody answers."""
    try:
        with urlopen(url, timeout=HANG) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError):
        return 0


def foreign_libraries(pid: int, root: Path) -> set[str]:
    """Shared libraries (name.so.major) that the process has loaded, neither under `root` nor in the image's base."""
    maps = Path(f"/proc/{pid}/maps").read_text()
    loaded = {Path(path) for path in re.findall(r"(/\S+\.so(?:\.[\d.]+)?)(?: \(deleted\))?$", maps, re.MULTILINE)}
    outside = [path.name for path in loaded if not path.is_relative_to(root) and not SLIM.match(path.name)]
    return {re.sub(r"(\.so\.\d+)\..*", r"\1", name) for name in outside}


def report(name: str, **numbers: float) -> None:
    """A measured line for people who run pytest with -s."""
    print(f"\n{name}: " + json.dumps({key: round(value, 2) for key, value in numbers.items()}))


# Runs inside a tree: prints every place under the given folders that this user could write.
WRITABLE = """
import os, sys
found = [
    os.path.join(folder, name)
    for top in sys.argv[1:]
    for folder, names, files in os.walk(top)
    for name in (".", *names, *files)
    if not os.path.islink(os.path.join(folder, name)) and os.access(os.path.join(folder, name), os.W_OK)
]
print(*found, sep="\\n")
"""
