"""What a compose project is put through, each a function of the running project that raises Broken or tells figures."""

import json
import time
import urllib.request
from dataclasses import asdict
from typing import Any

from openai import OpenAI

from tests.containers import smoke
from tests.containers.load import Load, chats, reads
from tests.containers.project import LASTING, Project
from tests.containers.smoke import Broken

UIDS = {"postgres": "999", "valkey": "999", "api": "10001", "worker": "10001"}
PROMETHEUS_PATIENCE = 90.0  # seconds: a scrape every 5, and as many again for every rule's first evaluation
# The worker first: the job is to be in its hands then, and to go on under all that follows.
TOUCHED = ("worker", *(service for service in LASTING if service != "worker"))


def client_of(project: Project, tenant: str = "smoke") -> OpenAI:
    """A tenant's client, its key made as the head of the compose file says."""
    project.run("onward", "tenants", "create", tenant)
    return OpenAI(base_url=f"{project.url}/v1", api_key=project.run("onward", "keys", "create", tenant).split()[-1])


def locked(project: Project) -> dict[str, Any]:
    """Every container: its user, no capability, no new privileges, a root that is not written to. Raises Broken."""
    found: dict[str, Any] = {}
    for service in LASTING:
        container = project.container(service)
        status = project.engine.run("exec", container, "cat", "/proc/1/status").stdout
        said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
        uid, capabilities, privileges = said["Uid"].split()[0], int(said["CapEff"], 16), said["NoNewPrivs"]
        write = project.engine.run("exec", container, "sh", "-c", "echo > /onward-was-here", check=False)
        if uid == "0" or uid != UIDS.get(service, uid) or capabilities or privileges != "1" or not write.returncode:
            raise Broken(
                f"{service}: uid {uid}, CapEff {said['CapEff']}, NoNewPrivs {privileges}, write {write.returncode}"
            )
        limits = project.inspected(service)["HostConfig"]
        found[service] = {"uid": int(uid), "memory": limits["Memory"], "cpus": limits.get("NanoCpus", 0) / 1e9}
    return found


def verified(project: Project, adapter: str) -> dict[str, Any]:
    """The verdict of a replay in the worker's image. Raises Broken where the hashes differ. Podman's API gives a run's
    exit status as 0 whatever it was: what it says counts."""
    command = ("run", "--rm", "--no-deps", "-T", "operator", "onward", "adapters", "verify", adapter, "--json")
    done = project.compose(*command, check=False)
    verdict: dict[str, Any] = json.loads(done.stdout or "{}")
    if not verdict.get("ok"):
        raise Broken(f"{adapter} is not its replay: {done.stdout[-300:]}{done.stderr[-300:]}")
    return {name: verdict[name] for name in ("step", "sha256", "seconds")}


def watched(project: Project) -> dict[str, Any]:
    """Prometheus scrapes API and worker, and every rule evaluates. Raises Broken."""
    ends = time.monotonic() + PROMETHEUS_PATIENCE
    while True:
        targets = _asked(project, "targets")["activeTargets"]
        rules = [rule for group in _asked(project, "rules")["groups"] for rule in group["rules"]]
        up = {target["labels"]["job"]: target["health"] for target in targets}
        health = {rule["name"]: rule["health"] for rule in rules}
        if set(up) == {"onward-api", "onward-worker"} and set(up.values()) == {"up"} and set(health.values()) == {"ok"}:
            return {"targets": up, "rules": len(rules)}
        if time.monotonic() > ends:
            wrong = {name: how for name, how in health.items() if how != "ok"}
            raise Broken(f"Prometheus: targets {up}, rules that are not ok: {wrong}")
        time.sleep(1)


def _asked(project: Project, what: str) -> dict[str, Any]:
    with urllib.request.urlopen(f"{project.prometheus}/api/v1/{what}", timeout=20) as answer:
        return json.load(answer)["data"]  # type: ignore[no-any-return]


def disturbed(
    project: Project, client: OpenAI, base: str, steps: int, act: tuple[str, ...], counted: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A job while every service is restarted (`act` is compose's words for it, before the service's name), under load,
    and the same job left alone: no request failed beyond the client's retries, no step lost and equal weights, or
    Broken. What fails while one of `counted` is touched is counted only."""
    job = smoke.submit(client, base, steps)
    seen = [0]

    def step() -> int:
        seen.append(int((client.fine_tuning.jobs.retrieve(job.id).model_extra or {})["onward"]["step"] or 0))
        return seen[-1]

    took: dict[str, float] = {}
    at: dict[str, int] = {}  # the step it stood at: what is restarted after its end disturbs nothing
    with Load({"reads": reads(client, job.id), "chats": chats(client, base)}) as load:
        _until(lambda: step() >= 1, "the first step")
        for service in TOUCHED:
            load.during(service)
            at[service], begun = seen[-1], time.monotonic()
            project.compose(*act, service)
            _until(lambda name=service: project.health(name) == "healthy", f"{service} to be healthy")
            _until(lambda: _quiet(step), "the API to answer")
            took[service] = round(time.monotonic() - begun, 2)
            load.settled()
        load.during("after")
        done = smoke.ended(client, job.id)
    if done.status != "succeeded" or sorted(seen) != seen:
        raise Broken(f"{done.id} {done.status} ({done.error}); steps seen {seen}")
    if late := [service for service in at if at[service] >= steps]:
        raise Broken(f"{steps} steps were over before {', '.join(late)} was touched: --steps wants more")
    alone = smoke.ended(client, smoke.submit(client, base, steps).id)
    hashes = [smoke.weights(client, one) for one in (done, alone)]
    if hashes[0] != hashes[1]:
        raise Broken(f"{done.id} was disturbed and holds {hashes[0]}, {alone.id} was not and holds {hashes[1]}")
    ours = (done.model_extra or {})["onward"]
    tallies = {name: {kind: asdict(tally) for kind, tally in kinds.items()} for name, kinds in load.tallies.items()}
    failed = [name for name, kinds in tallies.items() if any(kind["failed"] for kind in kinds.values())]
    if set(failed) - set(counted):
        raise Broken(f"requests failed: { {name: tallies[name] for name in failed} }")
    verdict = verified(project, str(done.fine_tuned_model))
    return {
        "steps": steps,
        "at_step": at,
        "seconds": took,
        "load": tallies,
        "restarts": ours["restarts"],
        "verified": verdict,
    }


def kept(project: Project, client: OpenAI, found: smoke.Found) -> float:
    """`down`, which leaves volumes, and `up` again: the adapter is the same bytes. Seconds from `up` to ready."""
    project.compose("down", "--timeout", "60")
    begun = time.monotonic()
    project.up()
    seconds = time.monotonic() - begun
    digest = smoke.weights(client, client.fine_tuning.jobs.retrieve(found.job))
    if digest != found.sha256:
        raise Broken(f"{found.adapter} was {found.sha256} and is {digest} after down and up")
    return round(seconds, 1)


def _quiet(act: Any) -> bool:
    """Whether it can be done at all."""
    try:
        act()
    except Exception:
        return False
    return True


def _until(true: Any, what: str) -> None:
    ends = time.monotonic() + smoke.WAIT
    while not true():
        if time.monotonic() > ends:
            raise Broken(f"{what} did not come within {smoke.WAIT:.0f} s")
        time.sleep(0.2)
