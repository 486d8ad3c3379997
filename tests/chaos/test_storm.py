"""A seeded storm over a real fleet: nothing is lost, doubled, leaked or failed for another's fault."""

import json
from pathlib import Path

import pytest

from tests.chaos import report
from tests.chaos.run import stormed
from tests.chaos.soak import soaked


def test_a_short_storm_loses_nothing(tmp_path):
    verdict = stormed(2, tenants=6, jobs=14, faults=16, logs=tmp_path)
    assert report.broken(report.gathered(2, verdict, [], {})) == []
    assert verdict.figures["faults"] == 16
    assert verdict.figures["largest change by company (nats)"] == 0.0
    assert sum(verdict.figures["jobs by state"].values()) + verdict.figures["refused at admission"] == 14


@pytest.mark.slow
def test_a_long_storm_loses_nothing(tmp_path):
    verdict = stormed(1, tenants=20, jobs=200, faults=300, logs=tmp_path)
    assert report.broken(report.gathered(1, verdict, [], {})) == []
    assert verdict.figures["faults"] == 300


@pytest.mark.slow
@pytest.mark.timeout(2 * 3600)
def test_an_hour_leaks_neither_memory_nor_handles(tmp_path):
    found = soaked(60.0, tmp_path)
    Path(tmp_path / "soak.json").write_text(json.dumps(found))
    assert found["broken"] == []
