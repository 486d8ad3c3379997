"""Probes as kubelet asks them, from a container's spec. Knows no engine: what runs in a container is handed in."""

import http.client
import socket
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

KINDS = ("startup", "readiness", "liveness")
Executes = Callable[[Sequence[str], float], str]  # command, seconds -> why it failed, or nothing


@dataclass(frozen=True)
class Probe:
    """One probe of a container. Times in seconds; kubelet's defaults where the spec says nothing. `port` is 0 for a
    command."""

    kind: str
    how: str
    port: int = 0
    path: str = "/"
    command: tuple[str, ...] = ()
    delay: float = 0.0
    period: float = 10.0
    timeout: float = 1.0
    failures: int = 3
    successes: int = 1

    def ask(self, address: str, execute: Executes) -> str:
        """Why it fails now; nothing where it succeeds."""
        try:
            if self.how == "exec":
                return execute(self.command, self.timeout)
            if self.how == "tcpSocket":
                socket.create_connection((address, self.port), timeout=self.timeout).close()
                return ""
            return self._get(address)
        except (OSError, http.client.HTTPException) as error:
            return f"{type(error).__name__}: {error}"

    def _get(self, address: str) -> str:
        """Kubelet takes 200 to 399 for success."""
        connection = http.client.HTTPConnection(address, self.port, timeout=self.timeout)
        try:
            connection.request("GET", self.path, headers={"User-Agent": "kube-probe/1.30", "Accept": "*/*"})
            answer = connection.getresponse()
            return "" if 200 <= answer.status < 400 else f"{answer.status} {answer.read(300).decode(errors='replace')}"
        finally:
            connection.close()


def probes(container: dict[str, Any]) -> dict[str, Probe]:
    """By kind. A named port is looked up among the container's own. Raises KeyError where there is no such port."""
    ports = {port.get("name"): port["containerPort"] for port in container.get("ports", [])}
    found = {}
    for kind in KINDS:
        if (said := container.get(f"{kind}Probe")) is None:
            continue
        (how,) = said.keys() & {"httpGet", "tcpSocket", "exec"}
        port = said[how].get("port", 0)
        found[kind] = Probe(
            kind,
            how,
            port=ports[port] if isinstance(port, str) else port,
            path=said[how].get("path", "/"),
            command=tuple(said[how].get("command", ())),
            delay=said.get("initialDelaySeconds", 0),
            period=said.get("periodSeconds", 10),
            timeout=said.get("timeoutSeconds", 1),
            failures=said.get("failureThreshold", 3),
            successes=said.get("successThreshold", 1),
        )
    return found


@dataclass
class Watch:
    """Asks a container's probes until it is closed: startup's until it succeeds, then the other two.

    `dead` is called where startup or liveness has failed as often as the spec allows; `history` has (seconds
    since the watch began, what changed, why)."""

    probes: dict[str, Probe]
    address: str
    execute: Executes
    dead: Callable[[], None]
    begun: float = field(default_factory=time.monotonic)
    history: list[tuple[float, str, str]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.started, self.ready, self.live = (threading.Event() for _ in range(3))
        self._over = threading.Event()
        if "startup" not in self.probes:
            self.started.set()
        self._threads = [threading.Thread(target=self._run, args=(kind,), daemon=True) for kind in self.probes]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def restarted(self, why: str) -> None:
        """The container is another: what was known of it is forgotten."""
        self._say("restarted", why)
        for known in (self.started, self.ready, self.live):
            known.clear()
        if "startup" not in self.probes:
            self.started.set()

    def _say(self, what: str, why: str = "") -> None:
        self.history.append((round(time.monotonic() - self.begun, 2), what, why))

    def _run(self, kind: str) -> None:
        probe, failed, held = self.probes[kind], 0, 0
        state = {"startup": self.started, "readiness": self.ready, "liveness": self.live}[kind]
        self._over.wait(probe.delay)
        while not self._over.is_set():
            if (kind == "startup") == self.started.is_set():
                failed = held = 0
                self._over.wait(0.1)
                continue
            asked = time.monotonic()
            why = probe.ask(self.address, self.execute)
            failed, held = (failed + 1, 0) if why else (0, held + 1)
            if (kind == "startup") == self.started.is_set():
                continue  # it was restarted meanwhile
            if held >= probe.successes and not state.is_set():
                state.set()
                self._say(f"{kind} holds")
            elif failed == probe.failures:
                state.clear()
                self._say(f"{kind} failed {failed} times", why)
                if kind != "readiness":
                    self.dead()
            self._over.wait(max(0.0, probe.period - (time.monotonic() - asked)))
