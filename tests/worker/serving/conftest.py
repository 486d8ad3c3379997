"""What the tests of making share with those of slices: a worker's context on a real database, and jobs for it."""

from tests.worker.slices.conftest import base, context, given_up, lines, row, rung, submit

__all__ = ("base", "context", "given_up", "lines", "row", "rung", "submit")
