"""The resident vLLM engine. vLLM reads its environment and chooses its build where it is imported: both are settled
before, whichever part of this is imported first."""

from worker import environment
from worker.engine import processor

environment.set_wanted()
processor.follow()
