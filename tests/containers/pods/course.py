"""What the pods go through, from an empty cluster to their end. Each step raises Broken where a promise is not kept."""

import json
import threading
import time
from typing import Any

import httpx
from openai import OpenAI

from tests.containers import smoke
from tests.containers.pods.faults import SERVERS, frozen, servers_away
from tests.containers.pods.pod import Pod
from tests.containers.pods.site import Site, last_line, said
from tests.containers.smoke import Broken

STEPS = 1500  # of the job that a worker is stopped in
UPLOAD = 9.0  # seconds that a request in hand takes: longer than preStop


class Course:
    """`site` from its first pod on; `client` talks to one API pod, which is not the one that is stopped."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self.pods: dict[str, Pod] = {}
        self.key = ""

    def run(self, quick: bool = False) -> None:
        site = self.site
        site.model("smollm2")
        self.empty_password()
        self.nothing_there()
        self.before_the_migration()
        self.migration()
        self.looks()
        self.operator()
        self.test_pod()
        self.walk()
        self.api_drains()
        self.worker_drains()
        servers_away(self)
        if not quick:
            frozen(self)
        self.ends()

    @property
    def client(self) -> OpenAI:
        address = self.pods["api"].place.address
        return OpenAI(base_url=f"http://{address}:8000/v1", api_key=self.key, max_retries=4)

    def empty_password(self) -> None:
        """A server without a password is not started: anybody in the namespace could use it."""
        site = self.site
        with site.step("valkey with an empty password does not start") as found:
            secrets = site.node.secrets
            (name,) = secrets
            site.node.secrets = {name: {**secrets[name], "redisPassword": ""}}
            pod = site.play("valkey")
            site.node.secrets = secrets
            site.until(lambda: "empty" in pod.logs(), f"a line of {pod.name}", 60)
            found["said"] = pod.logs().splitlines()[0]
            if pod.watch and pod.watch.started.is_set():
                raise Broken("valkey answers with an empty password")
            site.gone(pod)

    def nothing_there(self) -> None:
        """All at once, as an installation begins, and the servers last."""
        site = self.site
        with site.step("API, worker and migration wait for the servers") as found:
            self.pods["migrate"] = migrate = site.play("migrate")
            self.pods["first api"] = api = site.play("api")
            self.pods["worker"] = worker = site.play("worker")
            assert api.watch is not None
            site.until(api.watch.started.is_set, "the API's startup probe")
            site.until(lambda: said(api, "readiness failed"), "the API's readiness probe failing")
            found["API"] = said(api, "readiness failed")
            site.look(migrate)
            says = ("does not start", "OperationalError")
            site.until(lambda: any(word in worker.logs() for word in says), "the worker saying what it lacks")
            found["worker"], found["worker's lines"] = last_line(worker), len(worker.logs().splitlines())
            found["migration"] = last_line(migrate)
            migrate.signal("STOP")  # its loop: what is next is the time before it

    def before_the_migration(self) -> None:
        site = self.site
        with site.step("servers are there, tables are not") as found:
            for name in SERVERS:
                self.pods[name] = site.play(name)
            for name in SERVERS:
                site.ready(self.pods[name])
            api, worker = self.pods["first api"], self.pods["worker"]
            # The migration makes the roles that they log in as, too.
            for pod in (api, worker):
                site.until(lambda pod=pod: refused(pod), f"{pod.name} saying that it may not log in")
                found[pod.name] = refused(pod)
            answer = httpx.get(f"http://{api.place.address}:8000/readyz", timeout=20)
            found["readyz"], found["worker's restarts"] = answer.text, len(worker.restarts)
            if answer.status_code != 503:
                raise Broken("an API without tables says that it is ready")
            if not api.watch or not api.watch.live.is_set() or api.restarts:
                raise Broken("an API without tables was killed")

    def migration(self) -> None:
        site = self.site
        with site.step("the migration runs, API and worker become ready by themselves") as found:
            migrate = self.pods.pop("migrate")
            migrate.signal("CONT")
            if status := migrate.ended(300):
                raise Broken(f"the migration ended with {status}: {last_line(migrate)}")
            found["migration"] = last_line(migrate)
            site.gone(migrate)
            site.ready(self.pods["first api"])
            self.pods["api"] = site.play("api", 1)
            site.ready(self.pods["api"])
            site.ready(self.pods["worker"])
            found["worker's restarts"] = len(self.pods["worker"].restarts)

    def looks(self) -> None:
        with self.site.step("what pods are, seen from inside"):
            for pod in self.pods.values():
                self.site.look(pod)
            for component in ("test", "operator"):  # one is over too soon to be looked at: the same with a sleep
                pod = self.site.play(component, 7, command=["sleep", "600"])
                self.site.look(pod)
                self.site.gone(pod)

    def operator(self) -> None:
        site = self.site
        with site.step("a tenant and its key, by the operator's pod; the doctor in the API's") as found:
            pod = site.play("operator")
            pod.exec("onward", "tenants", "create", "pods")
            self.key = next(w for w in pod.exec("onward", "keys", "create", "pods").split() if w.startswith("sk-"))
            site.stop(pod, (0, 137, 143))  # a sleep as the first process hears no signal: its grace is a second
            found["doctor"] = self.pods["api"].exec("onward", "doctor", check=False).splitlines()

    def test_pod(self) -> None:
        site = self.site
        with site.step("`helm test`'s pod") as found:
            pod = site.play("test")
            found["status"] = pod.ended(120)
            if found["status"]:
                raise Broken(f"the test's pod ended with {found['status']}: {last_line(pod)}")
            site.gone(pod)

    def walk(self) -> None:
        site = self.site
        with site.step("the smoke walk, by the openai client") as found:
            walked = smoke.walk(self.client)
            found.update(vars(walked))
        self.verified(walked.adapter, walked.sha256)

    def verified(self, adapter: str, digest: str) -> None:
        site = self.site
        with site.step("the adapter is equal to its replay, by the operator's pod of replays") as found:
            pod = site.play("replay")
            answer = json.loads(pod.exec("onward", "adapters", "verify", adapter, "--json"))
            found.update({"adapter": adapter, "sha256": digest, "verify": answer})
            site.look(pod)
            site.stop(pod, (0, 137, 143))
            if not answer["ok"] or answer["sha256"] != digest:
                raise Broken(f"{adapter} is {digest}, and its replay says {answer}")

    def api_drains(self) -> None:
        site = self.site
        with site.step("an API pod is stopped with a request in hand") as found:
            pod = self.pods.pop("first api")
            answers: list[int] = []
            upload = threading.Thread(target=lambda: answers.append(self.slow_upload(pod)))
            upload.start()
            time.sleep(1)
            stopped = threading.Thread(target=site.stop, args=(pod,))
            stopped.start()
            time.sleep(3)  # in the sleep of preStop
            health = httpx.get(f"http://{pod.place.address}:8000/healthz", timeout=20).status_code
            upload.join()
            stopped.join()
            found.update({"upload": answers, "a request during preStop": health, "stop": site.stops[-1]})
            if answers != [200] or health != 200:
                raise Broken(f"a stopping API answered {answers} and {health}")

    def slow_upload(self, pod: Pod) -> int:
        """The status of an upload that takes UPLOAD seconds."""
        head = '--b\r\nContent-Disposition: form-data; name="purpose"\r\n\r\nfine-tune\r\n--b\r\n'
        head += 'Content-Disposition: form-data; name="file"; filename="slow.jsonl"\r\n\r\n'
        pieces = [head.encode(), *smoke.rows(16).splitlines(keepends=True), b"\r\n--b--\r\n"]

        def slowly() -> Any:
            for piece in pieces:
                time.sleep(UPLOAD / len(pieces))
                yield piece

        headers = {"Authorization": f"Bearer {self.key}", "Content-Type": "multipart/form-data; boundary=b"}
        headers["Content-Length"] = str(sum(map(len, pieces)))
        url = f"http://{pod.place.address}:8000/v1/files"
        return httpx.post(url, content=slowly(), headers=headers, timeout=60).status_code

    def worker_drains(self) -> None:
        site, client = self.site, self.client
        with site.step("a worker is stopped with a job in hand, and another goes on") as found:
            job = smoke.submit(client, "smollm2-135m", STEPS)
            site.until(lambda: step_of(client, job.id) > 50, "the job's first steps")
            site.stop(self.pods.pop("worker"))
            found.update({"stop": site.stops[-1], "step at the stop": step_of(client, job.id)})
            found["job after the stop"] = client.fine_tuning.jobs.retrieve(job.id).status
            if found["step at the stop"] >= STEPS or found["job after the stop"] in smoke.ENDED:
                raise Broken("the job was over before its worker was stopped")
            self.pods["worker"] = worker = site.play("worker", 1)
            site.ready(worker)
            ended = smoke.ended(client, job.id)
            if ended.status != "succeeded" or not ended.fine_tuned_model:
                raise Broken(f"{job.id} {ended.status}: {ended.error}")
            digest = smoke.weights(client, ended)
            found["job at the end"], found["steps"] = ended.status, step_of(client, job.id)
        self.verified(ended.fine_tuned_model, digest)

    def ends(self) -> None:
        with self.site.step("what is left is stopped with its grace") as found:
            for name in ("worker", "api", "valkey", "postgres"):
                self.site.stop(self.pods.pop(name))
            found["stops"] = self.site.stops[-4:]


def step_of(client: OpenAI, job_id: str) -> int:
    return int((client.fine_tuning.jobs.retrieve(job_id).model_extra or {})["onward"]["step"] or 0)


def refused(pod: Pod) -> str:
    """The line in which a process says that the database does not let it in; nothing where it has not said so."""
    return next((line for line in pod.logs().splitlines() if "authentication failed" in line), "")
