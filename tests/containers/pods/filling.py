"""The Job that fills a claim from the hub: the trial's values make none, so they are rendered with a model to fill."""

from pathlib import Path
from tempfile import TemporaryDirectory

import yaml

from tests.containers.pods.site import GROUP, Site, kinds, last_line
from tests.containers.smoke import Broken
from tests.helm.charts import VALUES, Object, template

NOWHERE = "onward-tests/no-such-model"


def with_filling(path: str) -> list[Object]:
    """The trial's objects, with a Job that fills this folder of the claim."""
    values = yaml.safe_load((VALUES[0].parent / "trial.yaml").read_text())
    values["models"] = [
        {"name": "filled", "path": path, "weights": {"existingClaim": "weights", "fillFrom": NOWHERE}},
    ]
    with TemporaryDirectory() as folder:
        file = Path(folder, "values.yaml")
        file.write_text(yaml.safe_dump(values))
        run = template(file)
    assert run.returncode == 0, run.stderr
    return [found for found in yaml.safe_load_all(run.stdout) if found]


def fills(site: Site) -> None:
    """One finds the model there and ends; one finds no hub, says so, and leaves nothing that looks like a model."""
    with site.step("the Job of weights: a claim that is full, and no hub") as found:
        site.model("full")
        claim = Path(site.node.claim("weights", GROUP).folder)
        for path in ("full", "empty"):
            site.kinds["weights"] = kinds(with_filling(path))["weights"]
            pod = site.play("weights", int(path == "empty"))
            if path == "full":  # the same with a sleep, to be looked at
                looked = site.play("weights", 7, command=["sleep", "600"])
                site.look(looked)
                site.gone(looked)
            found[path] = {"status": pod.ended(180), "said": last_line(pod) if path == "empty" else ""}
            site.gone(pod)
        if found["full"]["status"] or not found["empty"]["status"] or (claim / "empty").exists():
            raise Broken(f"the Job of weights ended so: {found}")
