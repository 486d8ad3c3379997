"""The compose file as it is committed, run by a real engine in a folder of its own: secrets, volumes and ports are the
project's, and gone with it.

Podman is asked through its Docker API. It has health checks run by systemd; where there is none they are run from here.
"""

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

from cli.local.ownership import dies_with_owner
from helm.images.engines import Engine, EngineError, last
from helm.images.targets import ROOT
from tests.ports import lasting_port

COMPOSE = Path(sys.executable).with_name("docker-compose")
PASSWORDS = ("postgres_password", "api_password", "worker_password", "valkey_password", "grafana_password")
KEYS = ("receipt_key", "serve_secret")
# Grafana has no package to stand in for it; autograd and GPU workers are other profiles.
SERVICES = ("postgres", "valkey", "migrate", "api", "proxy", "worker", "prometheus")
INTERVAL = 10.0  # seconds
LASTING = tuple(name for name in SERVICES if name != "migrate")


@dataclass
class Project:
    """A project of `engine` on the base model in `model_folder`, under the public name `model`."""

    engine: Engine
    model: str
    model_folder: Path
    env: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.name = f"onward-test-{secrets.token_hex(3)}"
        self.folder = Path(mkdtemp(prefix="onward-compose-"))
        self.ports = {name: lasting_port() for name in ("API_PORT", "PROMETHEUS_PORT", "GRAFANA_PORT")}
        self._service: subprocess.Popen[bytes] | None = None
        self._over = threading.Event()
        self._checks: threading.Thread | None = None
        self._lay_out()

    def _lay_out(self) -> None:
        """As the head of the compose file says."""
        self.folder.chmod(0o755)
        shutil.copy2(ROOT / "docker-compose.yml", self.folder)
        for name in ("rules", "dashboards"):
            shutil.copytree(ROOT / "helm" / name, self.folder / "helm" / name)
        (self.folder / "secrets").mkdir(mode=0o700)
        for name in (*PASSWORDS, *KEYS):
            self.secret(name, secrets.token_hex(32 if name in KEYS else 24))
        lines = {"ONWARD_MODEL": self.model, "ONWARD_MODEL_FOLDER": self.model_folder, **self.ports, **self.env}
        (self.folder / ".env").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))

    def secret(self, name: str, value: str) -> None:
        path = self.folder / "secrets" / name
        path.write_text(value + "\n" if value else "")
        path.chmod(0o644)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.ports['API_PORT']}"

    @property
    def prometheus(self) -> str:
        return f"http://127.0.0.1:{self.ports['PROMETHEUS_PORT']}"

    def __enter__(self) -> "Project":
        if self.engine.podman:
            self._serve()
            if not Path("/run/systemd/system").exists():
                self._checks = threading.Thread(target=self._check, daemon=True)
                self._checks.start()
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(EngineError, subprocess.TimeoutExpired):
            self.compose("down", "--volumes", "--timeout", "20", timeout=300)
        self._over.set()
        if self._checks:
            self._checks.join(30)
        if self._service:
            self._service.terminate()
            self._service.wait(30)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _serve(self) -> None:
        """Podman's Docker API on a socket in the project's folder."""
        command = [self.engine.program, "system", "service", "--time", "0", f"unix://{self.folder}/engine.sock"]
        log = (self.folder / "engine.log").open("wb")
        self._service = subprocess.Popen(
            command, env=self.engine.whole_env, stdout=log, stderr=log, preexec_fn=dies_with_owner(signal.SIGTERM)
        )
        ends = time.monotonic() + 60
        while not (self.folder / "engine.sock").exists():
            if time.monotonic() > ends or self._service.poll() is not None:
                raise EngineError(f"podman's service: {last((self.folder / 'engine.log').read_text())}")
            time.sleep(0.05)

    def compose(self, *args: str, timeout: float = 900.0, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """`docker compose ARGS` in this project. Raises EngineError where it fails and `check` is set."""
        keep = ("PATH", "HOME", "DOCKER_HOST", "DOCKER_CONTEXT")
        env = {name: os.environ[name] for name in keep if name in os.environ}
        if self._service:
            env["DOCKER_HOST"] = f"unix://{self.folder}/engine.sock"
        words = [str(COMPOSE), "--project-name", self.name, "--project-directory", str(self.folder), *args]
        done = subprocess.run(words, cwd=self.folder, env=env, capture_output=True, text=True, timeout=timeout)
        if check and done.returncode:
            raise EngineError(f"docker compose {args[0]}: {last(done.stderr or done.stdout)}")
        return done

    def up(self, *services: str, wait: bool = True, check: bool = True) -> "subprocess.CompletedProcess[str]":
        """Starts these, or all but Grafana; with `wait` until they are healthy."""
        wanted = services or SERVICES
        words = ["--wait", "--wait-timeout", "600"] if wait else []
        return self.compose("up", "--no-build", "--detach", *words, *wanted, check=check)

    def run(self, *command: str) -> str:
        """A command of the operator's, in a container of `migrate`."""
        return self.compose("run", "--rm", "--no-deps", "-T", "migrate", *command).stdout.strip()

    def container(self, service: str) -> str:
        """The id of the service's one container, running or not; empty where there is none."""
        found = self.compose("ps", "--all", "--quiet", service).stdout.split()
        return found[0] if found else ""

    def state(self, service: str) -> dict[str, Any]:
        """What the engine says of the service's container: State, with Health where it has one."""
        return self.inspected(service)["State"]  # type: ignore[no-any-return]

    def inspected(self, service: str) -> dict[str, Any]:
        (found,) = json.loads(self.engine.run("container", "inspect", self.container(service)).stdout)
        return found  # type: ignore[no-any-return]

    def health(self, service: str) -> str:
        state = self.state(service)
        return str((state.get("Health") or state.get("Healthcheck") or {}).get("Status") or "none")

    def logs(self, service: str) -> str:
        done = self.compose("logs", "--no-color", "--no-log-prefix", service, check=False)
        return done.stdout + done.stderr

    def _check(self) -> None:
        """What systemd's timers would do: every INTERVAL once a container is healthy, at once until then."""
        mine, form = f"label=com.docker.compose.project={self.name}", "{{.ID}} {{.Status}}"
        due: dict[str, float] = {}
        while not self._over.wait(1.0):
            lines = self.engine.run("ps", "--filter", mine, "--format", form, check=False).stdout.splitlines()
            for container, _, status in (line.partition(" ") for line in lines):
                if "(healthy)" not in status or time.monotonic() >= due.get(container, 0.0):
                    self.engine.run("healthcheck", "run", container, check=False)
                    due[container] = time.monotonic() + INTERVAL
