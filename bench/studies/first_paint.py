"""`python -m bench.studies.first_paint`: how heavy the console's pages are, and how soon they are seen, on localhost.

A Chromium with an empty cache each time; the service has a worker and a job that was trained, which the pages show.
Seconds are the browser's own, from the start of the navigation to the first contentful paint; bytes are what crossed
the wire, of the page and all that it loads. Writes bench/results/first_paint.json.
"""

import json
import os
import shutil
import sys
from pathlib import Path
from typing import Any, Final

from bench.report.measure import RESULTS, machine, spread

ROUNDS: Final = 7
PLACES: Final = ("jobs", "jobs/{job}", "compare?job={job}", "playground", "files", "account")
PAINT: Final = """() => new Promise(done => {
  const seen = () => performance.getEntriesByName("first-contentful-paint")[0];
  const tell = entry => done([entry.startTime, [...performance.getEntriesByType("navigation"),
    ...performance.getEntriesByType("resource")].reduce((sum, one) => sum + one.transferSize, 0)]);
  if (seen()) tell(seen());
  else new PerformanceObserver(list => seen() && tell(seen())).observe({ type: "paint", buffered: true });
})"""


def main() -> None:
    from bench.sections import service
    from bench.workloads import base_of
    from cli.local.demo_model import DEMO_MODEL

    with service.service(base_of(DEMO_MODEL, Path(".onward"))) as (stack, client):
        file = service.upload(client, 64)
        job = service.submit(client, DEMO_MODEL, file, 40, 4)
        service.wait_for(stack, job, lambda row: row.state == "succeeded", every=0.5)
        pages = _seen(stack.base_url.removesuffix("/v1"), client.api_key, job)
    found = {"machine": machine(), "rounds": ROUNDS, "pages": pages}
    (RESULTS / "first_paint.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for place, figures in pages.items():
        print(f"{place:<24}{figures['seconds']['median']:.3f} s   {figures['bytes'] / 1000:.0f} kB")


def _seen(url: str, key: str, job: str) -> dict[str, Any]:
    from playwright.sync_api import sync_playwright

    pages: dict[str, Any] = {}
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    alone = ["--no-sandbox"] if os.geteuid() == 0 else []
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--disable-gpu", *alone])
        for place in PLACES:
            seconds, weight = [], 0
            for number in range(ROUNDS + 1):  # the first is the server's own first
                context = browser.new_context(viewport={"width": 1200, "height": 900})
                page = context.new_page()
                page.goto(f"{url}/console/")
                page.get_by_label("Key").fill(key)
                page.get_by_role("button", name="Sign in").click()
                page.wait_for_url("**/console/jobs")
                session = context.new_cdp_session(page)
                session.send("Network.enable")
                session.send("Network.clearBrowserCache")
                page.goto(f"{url}/console/{place.format(job=job)}", wait_until="networkidle")
                painted, weight = page.evaluate(PAINT)
                if number:
                    seconds.append(painted / 1000)
                context.close()
            pages[place.format(job="JOB")] = {"seconds": spread(seconds), "bytes": weight}
            print(f"{place}: looked at", file=sys.stderr, flush=True)
        browser.close()
    return pages


if __name__ == "__main__":
    main()
