"""`python -m cli`: the same as `onward`."""

from cli.main import app

app()
