"""`make images`: the API's and the worker's image by the engine that this machine has, with size, SBOM and provenance.

What cannot be done is said in one sentence, with exit status 1.
"""

import argparse
import json
import os
import sys
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from bench.report.measure import machine
from helm.images import papers
from helm.images.build import Built, Sources, build, want_base
from helm.images.engines import EngineError, NoEngine, find
from helm.images.index import offered
from helm.images.targets import BASE, BASE_BYTES, ROOT, TARGETS, USUAL, Target


def main() -> None:
    """Parses, builds each, prints a table; papers and the report go to --out."""
    arguments = _parser().parse_args()
    targets = [target for target in TARGETS if target.name in arguments.only]
    try:
        with ExitStack() as stack:
            built = _built(stack, arguments, targets)
    except (NoEngine, EngineError, FileNotFoundError) as error:
        sys.exit(f"images: {error}")
    for line in table(built):
        print(line)


def _built(stack: ExitStack, arguments: argparse.Namespace, targets: list[Target]) -> list[Built]:
    out: Path = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    engine = find(out, arguments.engine)
    sources = _sources(stack, arguments)
    _say(f"{engine.version}; base {sources.base}")
    want_base(engine, sources.base)
    commit, built = papers.revision(), []
    for target in targets:
        _say(f"{target.image} from {target.file}, target {target.target}")
        done = build(engine, target, sources, commit)
        count = papers.sbom(target, out / f"{target.name}.cdx.json")
        _write(out / f"{target.name}.provenance.json", papers.provenance(done, engine, sources, commit))
        _say(f"{target.image}: {done.digest}, {done.seconds:.0f} s, {count} packages in {target.name}.cdx.json")
        built.append(done)
    _write(
        out / "report.json",
        {
            "machine": machine(),
            "engine": engine.version,
            "fresh": sources.fresh,
            "images": [report(one) for one in built],
        },
    )
    return built


def _sources(stack: ExitStack, arguments: argparse.Namespace) -> Sources:
    """Folders of wheels become indexes on loopback, which a build reaches over the machine's own network only."""
    for name in ("certificates", "pip_conf"):
        if (path := getattr(arguments, name)) and not path.is_file():
            raise FileNotFoundError(f"--{name.replace('_', '-')}: {path} is not a file.")
    sources = Sources(
        arguments.base, arguments.index, arguments.torch_index, arguments.certificates, arguments.pip_conf
    )
    if sources.torch_index and Path(sources.torch_index).is_dir():
        url = stack.enter_context(offered(Path(sources.torch_index)))
        sources = replace(sources, torch_index=url, host_network=True)
    return replace(sources, host_network=sources.host_network or arguments.host_network, fresh=arguments.fresh)


def report(built: Built) -> dict[str, Any]:
    """What the table says and more, for a file: bytes and seconds."""
    return {**asdict(built), "own": built.own, "expected": built.expected, "aim": built.target.most}


def table(built: list[Built]) -> list[str]:
    """A line an image and a line a layer, in megabytes, with the aim beside."""
    lines: list[str] = []
    for one in built:
        aim = "no aim" if one.target.most is None else f"aim {one.target.most / 1e6:.0f} MB"
        lines.append(
            f"{one.target.image}: {one.size / 1e6:.0f} MB, of which its base {one.base_size / 1e6:.0f}; on a published"
            f" base of {BASE_BYTES / 1e6:.0f} MB {one.expected / 1e6:.0f} ({aim}); built in {one.seconds:.0f} s"
        )
        lines += [f"  {layer.size / 1e6:8.1f} MB  {' '.join(layer.made_by.split())[:90]}" for layer in one.layers]
    return lines


def _write(path: Path, what: Any) -> None:
    path.write_text(json.dumps(what, indent=1) + "\n", encoding="utf-8")


def _say(line: str) -> None:
    print(f"images: {line}", file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="make images", description=__doc__)
    names = [target.name for target in TARGETS]
    parser.add_argument("--only", nargs="+", choices=names, default=list(USUAL), help="default: api worker")
    parser.add_argument("--engine", help="docker or podman; else the first that answers")
    parser.add_argument("--base", default=BASE, help="what FROM builds on: CPython 3.11 under /usr/local, with pip")
    parser.add_argument("--index", help="URL of a package index, in place of pip's own")
    parser.add_argument("--torch-index", help="URL, or a folder of wheels, in place of PyTorch's index of CPU builds")
    certificates = os.environ.get("PIP_CERT")
    parser.add_argument("--certificates", type=Path, default=certificates and Path(certificates),
                        help="CA certificates for the index; default: PIP_CERT")  # fmt: skip
    parser.add_argument("--pip-conf", type=Path, help="a pip.conf for the build, in place of what these options say")
    parser.add_argument("--host-network", action="store_true", help="build over the machine's own network")
    parser.add_argument("--fresh", action="store_true", help="build every layer again, as on a machine that has none")
    parser.add_argument("--out", type=Path, default=ROOT / ".onward/images", help="where papers and report go")
    return parser


if __name__ == "__main__":
    main()
