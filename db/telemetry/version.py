"""What this code is called. One place: the API, metrics, traces and images say it."""

VERSION = "0.1.0"
