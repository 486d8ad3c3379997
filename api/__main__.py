"""`python -m api`: the process that serves the API. Knows only where to begin."""

from api.app import main

main()
