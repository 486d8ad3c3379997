"""The resident vLLM engine. Importing any part of it sets the environment first, for vLLM reads it when imported."""

from worker import environment

environment.set_wanted()
