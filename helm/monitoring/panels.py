"""The kinds of panel: a curve, a number, a bar, a timeline of states. Each has a unit, an explanation and legends."""

from collections.abc import Sequence
from typing import Any

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, statetimeline, timeseries
from grafana_foundation_sdk.models import common as looks
from grafana_foundation_sdk.models import dashboard as models

from helm.monitoring import runbooks
from helm.monitoring.promql import within

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
Query = tuple[str, str]  # PromQL, legend
Limits = Sequence[tuple[float, str]]  # from this value on, this colour; below the first, the base colour
Built = timeseries.Panel | stat.Panel | bargauge.Panel | statetimeline.Panel
YES_NO = {
    "0": models.ValueMappingResult(text="no", color="red"),
    "1": models.ValueMappingResult(text="yes", color="green"),
}


def curve(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    limits: Limits = (),
    base: str = "green",
    alerts: Sequence[str] = (),
    stacked: bool = False,
    top: float | None = None,
) -> Built:
    """Lines over time from 0 up, limits as dashed lines, the last value and the mean in the legend."""
    panel = timeseries.Panel()
    _common(panel, title, about, unit, queries, limits, base, alerts)
    panel.span(width).height(8).min(0).line_width(1).fill_opacity(60 if stacked else 8)
    panel.show_points(looks.VisibilityMode.NEVER).span_nulls(False)
    legend = common.VizLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.LIST)
    panel.legend(legend.placement(looks.LegendPlacement.BOTTOM).calcs(["lastNotNull", "mean"]))
    panel.tooltip(common.VizTooltipOptions().mode(looks.TooltipDisplayMode.MULTI).sort(looks.SortOrder.DESCENDING))
    if stacked:
        panel.stacking(common.StackingConfig().mode(looks.StackingMode.NORMAL).group("A"))
    if limits:
        panel.thresholds_style(common.GraphThresholdsStyleConfig().mode(looks.GraphTresholdsStyleMode.DASHED))
    if top is not None:
        panel.max(top)
    return panel


def number(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    width: int = 4,
    limits: Limits = (),
    base: str = "green",
    alerts: Sequence[str] = (),
) -> Built:
    """The last value, large, over a faint curve, coloured by its limits."""
    panel = stat.Panel()
    _common(panel, title, about, unit, queries, limits, base, alerts)
    panel.span(width).height(4).reduce_options(_last()).color_mode(looks.BigValueColorMode.VALUE)
    return panel.graph_mode(looks.BigValueGraphMode.AREA).text_mode(looks.BigValueTextMode.AUTO)


def bars(
    title: str,
    about: str,
    unit: str,
    *queries: Query,
    width: int = 8,
    limits: Limits = (),
    base: str = "green",
    alerts: Sequence[str] = (),
    top: float | None = None,
) -> Built:
    """The last value of each series as a bar."""
    panel = bargauge.Panel()
    _common(panel, title, about, unit, queries, limits, base, alerts)
    panel.span(width).height(8).min(0).reduce_options(_last()).orientation(looks.VizOrientation.HORIZONTAL)
    if top is not None:
        panel.max(top)
    return panel.display_mode(looks.BarGaugeDisplayMode.BASIC)


def states(title: str, about: str, *queries: Query, width: int = 12, alerts: Sequence[str] = ()) -> Built:
    """Questions whose answer is yes (1, good) or no (0, bad), over time."""
    panel = statetimeline.Panel()
    _common(panel, title, about, "none", queries, (), "text", alerts)
    panel.span(width).height(8).mappings([models.ValueMap(options=YES_NO)]).merge_values(True).fill_opacity(70)
    legend = common.VizLegendOptions().show_legend(True).display_mode(looks.LegendDisplayMode.LIST)
    panel.legend(legend.placement(looks.LegendPlacement.BOTTOM))
    return panel.show_value(looks.VisibilityMode.NEVER).row_height(0.8)


def _last() -> common.ReduceDataOptions:
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def _common(
    panel: Any,
    title: str,
    about: str,
    unit: str,
    queries: Sequence[Query],
    limits: Limits,
    base: str,
    alerts: Sequence[str],
) -> None:
    panel.title(title).description(about).unit(unit).datasource(SOURCE).links([runbooks.link(a) for a in alerts])
    steps = [models.Threshold(value=None, color=base), *(models.Threshold(value=v, color=c) for v, c in limits)]
    panel.thresholds(dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps))
    colour = models.FieldColorModeId.PALETTE_CLASSIC if isinstance(panel, timeseries.Panel) else None
    panel.color_scheme(dashboard.FieldColor().mode(colour or models.FieldColorModeId.THRESHOLDS))
    for ref, (expr, legend) in zip("ABCDEFGHIJ", queries, strict=False):
        asked = within(" ".join(expr.split()))
        query = prometheus.Dataquery().expr(asked).legend_format(legend).ref_id(ref).range()
        panel.with_target(query.datasource(SOURCE))
