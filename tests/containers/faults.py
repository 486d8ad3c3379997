"""What an operator gets wrong, one thing at a time, in a running compose project: the container that it concerns says
so in one line, the others go on, and Compose's own list shows it. Each is mended before the next, and the
container healthy before another is spoilt.
"""

import re
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

from tests.containers.project import LASTING, Project
from tests.containers.smoke import Broken

PATIENCE = 240.0  # seconds for a process to say what is wrong: a worker imports its engine first
AGAIN = ("up", "--no-build", "--no-deps", "--force-recreate", "--detach")


class NotHere(Exception):
    """This machine cannot be made to have that fault, and why."""


@dataclass(frozen=True)
class Fault:
    """`spoil` makes it; `service` is who must say what `words` match. `shown` are the states in which Compose may list
    that service meanwhile."""

    name: str
    service: str
    spoil: Callable[[Project], Any]
    words: str
    shown: tuple[str, ...] = ("restarting", "exited", "unhealthy", "starting")


@contextmanager
def secret(project: Project, name: str, value: str) -> Iterator[None]:
    """The secret's file with another content."""
    kept = (project.folder / "secrets" / name).read_text().strip()
    project.secret(name, value)
    try:
        yield
    finally:
        project.secret(name, kept)


@contextmanager
def setting(project: Project, name: str, value: object) -> Iterator[None]:
    """A line of .env with another value."""
    path = project.folder / ".env"
    kept = path.read_text()
    path.write_text(f"{kept}{name}={value}\n")
    try:
        yield
    finally:
        path.write_text(kept)


@contextmanager
def override(project: Project, text: str) -> Iterator[None]:
    """A compose file beside the committed one, which Compose reads by itself."""
    path = project.folder / "docker-compose.override.yml"
    path.write_text(text)
    try:
        yield
    finally:
        path.unlink()


@contextmanager
def emptied(project: Project) -> Iterator[None]:
    """A folder of the base model that is there and holds nothing."""
    (folder := project.folder / "nothing").mkdir(exist_ok=True)
    with setting(project, "ONWARD_MODEL_FOLDER", folder):
        yield


def home(project: Project, mount: str) -> "AbstractContextManager[None]":
    """The worker's home as this mount, where the compose file has its volume."""
    model = "{type: bind, source: '${ONWARD_MODEL_FOLDER}', target: /models/base, read_only: true}"
    return override(project, f"services: {{worker: {{volumes: !override [{model}, {mount}]}}}}\n")


def read_only(project: Project) -> "AbstractContextManager[None]":
    return home(project, "{type: volume, source: worker, target: /var/lib/onward, read_only: true}")


@contextmanager
def full(project: Project) -> Iterator[None]:
    """A file system of one page, which is the user's. Raises NotHere where this process may not mount one: Podman takes
    the size of a tmpfs volume for a quota."""
    (folder := project.folder / "full").mkdir(exist_ok=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=4k,uid=10001,gid=10001", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True).returncode:
        raise NotHere("this process may not mount a small file system")
    try:
        with home(project, f"{{type: bind, source: {folder}, target: /var/lib/onward}}"):
            yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, capture_output=True)


def password(name: str, value: str) -> Callable[[Project], Any]:
    return lambda project: secret(project, name, value)


NO_MODEL = r"does not start: .*config\.json"
FAULTS = (
    Fault("an empty API password", "api", password("api_password", ""), r"password"),
    Fault("an empty broker password", "valkey", password("valkey_password", ""), r"is empty"),
    Fault(
        "a wrong worker password",
        "worker",
        password("worker_password", "sesame"),
        r"does not start: .*authentication failed",
    ),
    Fault("a model that is not there", "worker", emptied, NO_MODEL),
    Fault("a worker's volume that is full", "worker", full, r"No space left on device.*out of service"),
    Fault("a worker's volume that is read-only", "worker", read_only, r"Read-only file system.*out of service"),
)


def each(project: Project) -> Iterator[tuple[str, str]]:
    """(name of the fault, the line that says it) of every fault, in turn. Raises Broken where one is not said, or
    where another container suffers."""
    for fault, after in zip(FAULTS, (*FAULTS[1:], None), strict=True):
        try:
            with fault.spoil(project):
                project.compose(*AGAIN, fault.service)
                yield fault.name, _said(project, fault)
                _others(project, fault.service)
        except NotHere as why:
            yield fault.name, f"not tried: {why}"
        if after is None or after.service != fault.service:
            project.compose(*AGAIN, fault.service)
            _healthy(project, fault.service)
    yield "a port that is taken", port_taken(project)
    yield "a model's folder that does not exist", no_folder(project)
    yield "PostgreSQL that is slow to answer", slow_database(project)


def port_taken(project: Project) -> str:
    """Compose itself says so; the API keeps running where it was."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with setting(project, "API_PORT", port):
            done = project.compose(*AGAIN, "proxy", check=False)
    said = [line for line in (done.stdout + done.stderr).splitlines() if "address already in use" in line]
    if not done.returncode or not said:
        raise Broken(f"a taken port was not refused: {done.stdout + done.stderr}")
    project.compose(*AGAIN, "proxy")
    _healthy(project, "proxy")
    return said[-1].strip()


def no_folder(project: Project) -> str:
    """Docker refuses it before anything starts. Podman's Docker API knows no such refusal and makes an empty one: then
    it is the worker that says what is missing."""
    missing = project.folder / "nowhere"
    with setting(project, "ONWARD_MODEL_FOLDER", missing):
        done = project.compose(*AGAIN, "worker", check=False)
        if done.returncode:
            said = (done.stderr or done.stdout).strip().splitlines()[-1]
        else:
            said = "made empty by this engine; " + _said(project, Fault("no folder", "worker", emptied, NO_MODEL))
    project.compose(*AGAIN, "worker")
    _healthy(project, "worker")
    return said


def slow_database(project: Project) -> str:
    """While PostgreSQL does not answer a new API is there and not ready, and is as soon as it does."""
    database = project.container("postgres")
    project.engine.run("pause", database)
    try:
        project.compose(*AGAIN, "api")
        ends = time.monotonic() + 15
        while time.monotonic() < ends:
            if project.health("api") == "healthy":
                raise Broken("the API is healthy while its database answers nobody")
            time.sleep(0.5)
    finally:
        project.engine.run("unpause", database)
    begun = time.monotonic()
    _healthy(project, "api")
    return f"not ready for 15 s, ready {time.monotonic() - begun:.1f} s after the database"


def _said(project: Project, fault: Fault) -> str:
    """The first line that says it."""
    ends = time.monotonic() + PATIENCE
    while time.monotonic() < ends:
        said = project.logs(fault.service)
        lines = [line for line in said.splitlines() if re.search(fault.words, line)]
        if "Traceback" in said:
            raise Broken(f"{fault.name}: {fault.service} ends in a traceback: {said[-1500:]}")
        state = project.state(fault.service)
        shown = {str(state.get("Status")), project.health(fault.service)}
        if lines and shown & set(fault.shown) and "healthy" not in shown:
            return lines[-1].strip()[:400]
        time.sleep(1)
    raise Broken(f"{fault.name}: {fault.service} shows {shown} and says {project.logs(fault.service)[-1500:]}")


def _others(project: Project, spoiled: str) -> None:
    for service in LASTING:
        if service != spoiled and project.state(service)["Status"] != "running":
            raise Broken(f"{service} does not run, because of {spoiled}")


def _healthy(project: Project, service: str) -> None:
    ends = time.monotonic() + PATIENCE
    while project.health(service) != "healthy":
        if time.monotonic() > ends:
            raise Broken(f"{service} did not become healthy again: {project.logs(service)[-1500:]}")
        time.sleep(0.5)
