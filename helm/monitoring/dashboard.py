"""One dashboard: its variables, its links to the others, its rows. Knows no panel's content."""

from collections.abc import Sequence

from grafana_foundation_sdk.builders import dashboard
from grafana_foundation_sdk.models import dashboard as models

from helm.monitoring.panels import SOURCE, Built
from helm.monitoring.promql import HERE

Row = tuple[str, Sequence[Built]]
ALL = models.VariableOption(selected=True, text=["All"], value=["$__all"])


def make(
    uid: str, title: str, about: str, *rows: Row, extra: Sequence[dashboard.TextBoxVariable] = ()
) -> dashboard.Dashboard:
    """A dashboard of rows of panels; panels are numbered in reading order."""
    made = (
        dashboard.Dashboard(f"Onward / {title}")
        .uid(uid)
        .description(about)
        .tags(["onward"])
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time("now-3h", "now")
        .refresh("30s")
        .editable()
        .link(_others())
    )
    for variable in (_datasource(), _namespace(), _release(), _model(), *extra, _runbooks()):
        made.with_variable(variable)
    number = 0
    for name, panels in rows:
        number += 1
        made.with_row(dashboard.Row(name).id(number))
        for panel in panels:
            number += 1
            made.with_panel(panel.id(number))
    return made


def _others() -> dashboard.DashboardLink:
    link = dashboard.DashboardLink("Onward").type(models.DashboardLinkType.DASHBOARDS).tags(["onward"])
    return link.as_dropdown(True).include_vars(True).keep_time(True)


def _datasource() -> dashboard.DatasourceVariable:
    return dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus")


def _namespace() -> dashboard.QueryVariable:
    return _labels("namespace", "Namespace", "label_values(onward_build_info, namespace)")


def _release() -> dashboard.QueryVariable:
    """One at a time: sums over several installations would say nothing of any."""
    return _labels("release", "Release", 'label_values(onward_build_info{namespace="$namespace"}, release)')


def _labels(name: str, label: str, query: str) -> dashboard.QueryVariable:
    made = dashboard.QueryVariable(name).label(label).datasource(SOURCE).query(query)
    return made.refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(models.VariableSort.ALPHABETICAL_ASC)


def _model() -> dashboard.QueryVariable:
    made = _labels("model", "Base model", f"label_values(onward_engine_ready{{{HERE}}}, model)")
    return made.multi(True).include_all(True).all_value(".*").current(ALL)


def _runbooks() -> dashboard.TextBoxVariable:
    made = dashboard.TextBoxVariable("runbooks").label("Runbooks at").default_value("docs/runbooks")
    made.current(models.VariableOption(text="docs/runbooks", value="docs/runbooks"))
    return made.description("Address under which the pages of docs/runbooks are served; links of panels begin with it.")
