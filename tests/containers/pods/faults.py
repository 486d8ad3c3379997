"""Servers that go away, processes that freeze or are killed: what probes, restarts and claims make of it."""

from typing import TYPE_CHECKING

from tests.containers.pods.site import said
from tests.containers.smoke import Broken

if TYPE_CHECKING:
    from tests.containers.pods.course import Course

SERVERS = ("postgres", "valkey")


def servers_away(course: "Course") -> None:
    """Each server's pod is replaced; its claim stays."""
    site, api = course.site, course.pods["api"]
    assert api.watch is not None
    for name in SERVERS:
        with site.step(f"{name} is stopped and comes back with what it had") as found:
            site.stop(course.pods.pop(name))
            found["stop"] = site.stops[-1]
            if name == "postgres":
                site.until(lambda: not api.watch.ready.is_set(), "an API without a database that is not ready", 60)
                found["API"] = api.watch.history[-1]
            course.pods[name] = site.play(name)
            site.ready(course.pods[name])
            site.ready(api)
            found["models"] = len(course.client.models.list().data)
            if found["models"] < 3 or not api.watch.live.is_set() or api.restarts:
                raise Broken(f"the API was killed, or the database forgot: {found}")


def frozen(course: "Course") -> None:
    """Stopped processes: whom readiness takes out, whom liveness replaces, whom nothing does."""
    site, pods = course.site, course.pods
    with site.step("a killed valkey is started again; frozen pods turn unhealthy as their probes say") as found:
        pods["valkey"].signal("KILL")
        site.until(lambda: pods["valkey"].restarts, "valkey started again", 60)
        site.ready(pods["valkey"])
        begun = {name: len(pod.watch.history) for name, pod in pods.items() if pod.watch}
        for name in ("worker", "postgres"):
            pods[name].signal("STOP")
        site.until(lambda: said(pods["postgres"], "readiness failed", begun["postgres"]), "postgres not ready", 120)
        pods["postgres"].signal("CONT")
        site.ready(pods["postgres"])
        pods["api"].signal("STOP")
        site.until(lambda: said(pods["worker"], "liveness failed", begun["worker"]), "a worker that is not live", 240)
        pods["worker"].signal("CONT")  # to end in order, within its grace
        site.until(lambda: said(pods["api"], "liveness failed", begun["api"]), "an API that is not live", 180)
        for name in ("api", "worker"):
            site.until(lambda name=name: pods[name].restarts, f"{name} started again", 240)
            site.ready(pods[name])
        found.update({name: pod.watch.history[begun[name] :] for name, pod in pods.items() if pod.watch})
