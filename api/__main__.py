"""`python -m api`: serves until SIGTERM, finishing the requests in hand."""

from api.app import main

main()
