"""The chart's pods, run from their own rendered specs by `podman kube play`, on a node of our own.

    python -m tests.containers.pods --out bench/results/pods.json

What a cluster adds to a spec is done here: laying out volumes, asking probes, stopping with grace, a Service's name.
"""
