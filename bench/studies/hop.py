"""`python -m bench.studies.hop`: what the API adds to a chat between the client and the worker, on the demo's base.

The same requests to the API and to the worker's own port, in turns, in rounds: seconds more to a first token and
between tokens, by the client's clock; and the API's processor time a chat, which other work hardly moves. Writes
bench/results/hop.json.
"""

import json
from pathlib import Path
from typing import Any, Final

from bench.report.measure import RESULTS, machine, spread

ROUNDS: Final = 3
PAIRS: Final = 25


def main() -> None:
    from bench.sections import asking, service, serving
    from bench.workloads import base_of
    from cli.local.demo_model import DEMO_MODEL

    rounds: list[dict[str, Any]] = []
    with serving.chatting(base_of(DEMO_MODEL, Path(".onward"))) as scene:
        asking.in_turn(scene.http, asking.bodies(scene.model, 4, 0))  # warm
        (api,) = [p.process.popen.pid for p in scene.stack.processes if p.name == "api"]
        for number in range(ROUNDS):
            busy = service.processor_seconds(api)
            found = serving.hop(scene, PAIRS, print, number)
            spent = (service.processor_seconds(api) - busy) / found["requests"]
            rounds.append({**found, "API's processor seconds a chat": spent})
    each = {name: spread([one[name] for one in rounds]) for name in rounds[0] if name != "requests"}
    found = {"machine": machine(), "rounds": rounds, "over the rounds": each}
    (RESULTS / "hop.json").write_text(json.dumps(found, indent=1, sort_keys=True) + "\n", encoding="utf-8")
    for name, values in each.items():
        print(f"{name}: {1000 * values['median']:.1f} ms ({', '.join(f'{1000 * one[name]:.1f}' for one in rounds)})")


if __name__ == "__main__":
    main()
