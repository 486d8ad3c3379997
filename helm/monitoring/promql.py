"""Pieces of PromQL that dashboards share. Grafana fills in `$namespace`, `$release`, `$model`, `$__rate_interval`."""

import re

HERE = 'namespace="$namespace", release="$release"'
OF = 'model=~"$model"'
NAME = re.compile(r"(?<![\w:])((?:\w+:)?(?:onward_|process_)\w+(?::\w+)?|up)(?![\w:])(\{)?")


def within(expr: str) -> str:
    """`expr` asked of the chosen installation alone: every series of API, workers and rules is named by its labels."""
    return NAME.sub(lambda found: f"{found[1]}{{{HERE}" + (", " if found[2] else "}"), expr)


def rate(counter: str, by: str = "model", where: str = "") -> str:
    """Events a second, summed over workers."""
    return f"sum by ({by}) (rate({counter}{{{_and(where)}}}[$__rate_interval]))"


def mean(histogram: str, by: str = "model") -> str:
    """The mean observation."""
    return f"{rate(histogram + '_sum', by)} / {rate(histogram + '_count', by)}"


def quantile(q: float, histogram: str, by: str = "model") -> str:
    """A quantile from a histogram's buckets."""
    return f"histogram_quantile({q}, {rate(histogram + '_bucket', 'le, ' + by)})"


def top(gauge: str, by: str = "model", where: str = "") -> str:
    """A gauge that every API process exports alike, or the worst of several workers."""
    return f"max by ({by}) ({gauge}{{{_and(where)}}})"


def total(gauge: str, by: str = "model") -> str:
    """A gauge of workers, summed."""
    return f"sum by ({by}) ({gauge}{{{OF}}})"


def _and(where: str) -> str:
    return f"{OF}, {where}" if where else OF


def jobs(state: str) -> str:
    """Live jobs in a state, by model."""
    return top("onward_jobs", where=f'state="{state}"')


def workers(state: str) -> str:
    """Fresh workers in a state, by model."""
    return top("onward_workers", where=f'state="{state}"')


def vllm(name: str) -> str:
    """A family of vLLM's own. Prometheus 2 is given its name with `_`, Prometheus 3 with vLLM's `:`."""
    return f'{{{HERE}, __name__=~"vllm[:_]{name}", model_name=~"$model"}}'
