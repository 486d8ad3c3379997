"""A trace is carried whether or not spans are exported, and lines say which it is."""

import io
import json
import logging
import subprocess
import sys

import structlog

from db.telemetry import logs, traces

GIVEN = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_a_span_without_an_exporter_is_a_place_in_its_parents_trace():
    with traces.span("a", GIVEN):
        assert traces.trace_id() == "0af7651916cd43dd8448eb211c80319c"
        here = traces.traceparent()
        assert here != GIVEN
        with traces.span("b"):
            assert traces.trace_id() == "0af7651916cd43dd8448eb211c80319c"
            assert traces.traceparent() != here
    assert traces.trace_id() is None
    assert traces.traceparent() is None


def test_without_a_parent_a_trace_begins():
    seen = set()
    for _ in range(3):
        with traces.span("a", ""):
            seen.add(traces.trace_id())
    assert len(seen) == 3
    assert all(len(x) == 32 for x in seen)


def test_only_well_formed_traceparents_come_in():
    assert traces.incoming({"traceparent": GIVEN}) == GIVEN
    for bad in ("", "00-0-0-01", GIVEN.replace("0af7", "zzzz"), "00-" + "0" * 32 + "-b7ad6b7169203331-01"):
        assert traces.incoming({"traceparent": bad}) is None


def test_without_an_endpoint_no_exporter_is_imported():
    program = (
        "import sys; from db.telemetry import traces; traces.configure('x')\n"
        "with traces.span('a'): pass\n"
        "print([m for m in sys.modules if m.startswith('opentelemetry.sdk') or 'otlp' in m])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_librarys_exception_is_one_line_without_locals(monkeypatch):
    before, out = structlog.get_config(), io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    secret = "a tenant's row"
    try:
        logs.configure("api", "json")
        try:
            raise ValueError(len(secret))
        except ValueError:
            logging.getLogger("some.library").exception("it broke")
    finally:
        structlog.configure(**before)
    (line,) = map(json.loads, out.getvalue().splitlines())
    assert (line["event"], line["logger"], line["level"]) == ("it broke", "some.library", "error")
    assert "ValueError: 14" in line["exception"]
    assert secret not in out.getvalue()


def test_lines_are_json_with_what_the_context_binds(monkeypatch):
    before = structlog.get_config()
    out = io.StringIO()
    monkeypatch.setattr(sys, "stderr", out)
    try:
        logs.configure("worker", "json", "INFO")
        log = structlog.get_logger("worker.tests")
        with structlog.contextvars.bound_contextvars(slice="slc_1"), traces.within(GIVEN):
            log.info("stepped", job="ftjob-1", step=3)
            log.debug("not said")
    finally:
        structlog.configure(**before)
    (line,) = map(json.loads, out.getvalue().splitlines())
    wanted = {
        "component": "worker",
        "logger": "worker.tests",
        "event": "stepped",
        "level": "info",
        "slice": "slc_1",
        "job": "ftjob-1",
        "step": 3,
    }
    assert wanted | {"trace": "0af7651916cd43dd8448eb211c80319c"} == {k: v for k, v in line.items() if k != "timestamp"}
