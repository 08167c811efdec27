"""The report's figures as pictures, by Matplotlib: one panel for each workload or group."""

import io
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from harness.errors import UsageError
from harness.reports.appearance import DASHES, LIGHT, MARKERS, Look, dash, looks
from harness.reports.curves import Limits, Points, Series, learning_curves
from harness.reports.gathering import Gathered, Section
from harness.reports.profiles import Profile, performance_profiles
from harness.wording import counted, score, target_words

if TYPE_CHECKING:
    from matplotlib.axes import Axes

MOST_PANELS = 12  # a taller picture than that nobody can look at

Abscissa = Literal["time", "steps", "examples", "passes"]
Ordinate = Literal["memory", "energy"]

_ABSCISSAE: dict[Abscissa, tuple[str, str]] = {
    "time": ("elapsed_s", "submission time, s"),
    "steps": ("steps", "steps"),
    "examples": ("examples", "examples"),
    "passes": ("model_passes", "model passes"),
}
_WIDTH_INCHES = 7.0
_PANEL_INCHES = 3.6
_DOTS_PER_INCH = 160
_MUTED = "#5a616b"
_STYLE: Any = {  # Matplotlib's own type names every key
    "font.size": 9,
    "font.family": ["sans-serif"],
    "axes.edgecolor": "#9aa0a8",
    "axes.labelcolor": _MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dfe2e6",
    "grid.linewidth": 0.6,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "xtick.color": _MUTED,
    "ytick.color": _MUTED,
    "svg.fonttype": "none",  # text stays text: it can be found and edited
    "svg.hashsalt": "timetrial",  # the same figure is the same file
}


def plot_curves(gathered: Gathered, abscissa: Abscissa, form: str) -> bytes:
    """Return the picture of learning curves, a panel for each section."""
    drawn = learning_curves(gathered, Limits(points=10**6, points_of_a_trace=2000))
    appearance = looks(gathered.submissions)

    def draw(axes: "Axes", number: int) -> None:
        _draw_curves(axes, gathered.sections[number], drawn[number], abscissa, appearance)

    return _picture(_titles(gathered.sections), _machines(gathered.sections), draw, form)


def plot_profiles(gathered: Gathered, form: str) -> bytes:
    """Return the picture of performance profiles, a panel for each tuning effort.

    Raises:
        UsageError: there is none.
    """
    profiles = performance_profiles(gathered)
    if not profiles:
        raise UsageError(
            "There is no performance profile: it takes two submissions of one tuning effort that "
            "were run on the same two workloads or more. See `bench sweep`."
        )
    appearance = looks(gathered.submissions)
    titles = [
        f"{counted(len(one.workloads), 'workload')}, tuning effort: {one.effort}"
        for one in profiles
    ]
    machines = dict.fromkeys(one.machine_class for one in profiles)

    def draw(axes: "Axes", number: int) -> None:
        _draw_profile(axes, profiles[number], appearance)

    return _picture(titles, machines, draw, form)


def plot_pareto(gathered: Gathered, ordinate: Ordinate, form: str) -> bytes:
    """Return the picture of time against memory or energy, a panel for each section.

    Raises:
        UsageError: nothing that is ranked has a figure of that kind.
    """
    appearance = looks(gathered.submissions)
    costs = [_costs(section, ordinate) for section in gathered.sections]
    shown = [
        (section, rows) for section, rows in zip(gathered.sections, costs, strict=True) if rows
    ]
    if not shown:
        raise UsageError(
            f"No ranked row has a figure of {ordinate}. "
            + ("It was not measured: see `bench doctor`." if ordinate == "energy" else "")
        )

    def draw(axes: "Axes", number: int) -> None:
        section, rows = shown[number]
        _draw_pareto(axes, section, rows, ordinate, appearance)

    sections = [section for section, _ in shown]
    return _picture(_titles(sections), _machines(sections), draw, form)


def plot_leaderboard(gathered: Gathered, form: str) -> bytes:
    """Return the picture of median times with their ranges, a panel for each section."""
    appearance = looks(gathered.submissions)

    def draw(axes: "Axes", number: int) -> None:
        _draw_leaderboard(axes, gathered.sections[number], appearance)

    heights = [0.9 + 0.26 * len(section.rows) for section in gathered.sections]
    sections = gathered.sections
    return _picture(_titles(sections), _machines(sections), draw, form, heights)


def _picture(
    titles: Sequence[str],
    machines: Iterable[str],
    draw: Callable[["Axes", int], None],
    form: str,
    heights: Sequence[float] | None = None,
) -> bytes:
    import matplotlib
    from matplotlib.figure import Figure  # not pyplot, which looks for a screen

    if len(titles) > MOST_PANELS:
        raise UsageError(
            f"That would be {len(titles)} panels, and {MOST_PANELS} are the most. "
            "Choose workloads by -w."
        )
    inches = list(heights or [_PANEL_INCHES] * len(titles))
    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(_WIDTH_INCHES, sum(inches)), layout="constrained")
        panels = figure.subplots(len(titles), 1, squeeze=False, height_ratios=inches)[:, 0]
        for number, (axes, title) in enumerate(zip(panels, titles, strict=True)):
            draw(axes, number)
            axes.set_title(verbatim(title))
        figure.supxlabel(verbatim("; ".join(machines)), fontsize=7, color=_MUTED)
        stream = io.BytesIO()
        # No date: the same figure is the same file.
        metadata = {} if form == "png" else {"Date" if form == "svg" else "CreationDate": None}
        figure.savefig(stream, format=form, dpi=_DOTS_PER_INCH, metadata=metadata)
    return stream.getvalue()


def verbatim(text: str) -> str:
    """Return a text in which two dollars make no formula."""
    return text.replace("$", "\\$")


def _titles(sections: Sequence[Section]) -> list[str]:
    """Return the panels' titles, with the machine class where there are several."""
    several = len(_machines(sections)) > 1
    return [
        f"{section.workload} v{section.version}" + (f"\n{section.machine_class}" if several else "")
        for section in sections
    ]


def _machines(sections: Sequence[Section]) -> list[str]:
    return list(dict.fromkeys(section.machine_class for section in sections))


def _draw_curves(
    axes: "Axes",
    section: Section,
    series: Sequence[Series],
    abscissa: Abscissa,
    appearance: Mapping[str, Look],
) -> None:
    field, label = _ABSCISSAE[abscissa]
    for one in series:
        look = appearance[one.row.submission]
        colour = LIGHT[look.colour]
        name = _label(section, one.row.submission, one.row.effort)
        for number, trace in enumerate(one.traces):
            axes.plot(
                getattr(trace.points, field),
                _numbers(trace.points),
                color=colour,
                alpha=0.4 if one.median else 0.7,
                linewidth=0.7,
                linestyle=":" if trace.run["tainted"] else "-",
                label=name if one.median is None and number == 0 else None,
            )
        if one.median is not None:
            points = getattr(one.median, field)
            axes.plot(
                points,
                _numbers(one.median),
                color=colour,
                linewidth=1.8,
                linestyle=DASHES[dash(one.row.effort, section.efforts)][1],
                marker=MARKERS[look.marker][1],
                markersize=4,
                markevery=max(1, len(points) // 6),
                label=name,
            )
    metric = section.spec.workload.metric
    if metric.within_reach:
        axes.axhline(metric.target, color="#1b1d21", linewidth=0.8, linestyle="--")
        axes.annotate(
            target_words(metric),
            (0, metric.target),
            xycoords=("axes fraction", "data"),
            xytext=(2, 2),
            textcoords="offset points",
            color=_MUTED,
            fontsize=7,
        )
    axes.set(xlabel=label, ylabel=verbatim(metric.name))
    axes.set_xlim(left=0)
    if metric.direction == "minimise" and _steep(series):
        axes.set_yscale("log")
    _legend(axes)


def _numbers(points: Points) -> list[float]:
    return [float("nan") if value is None else value for value in points.value]


def _steep(series: Sequence[Series]) -> bool:
    """Return whether values span so much that only a logarithmic axis shows the target."""
    values = [
        value
        for one in series
        for points in [*(trace.points for trace in one.traces), one.median]
        if points is not None
        for value in points.value
        if value is not None
    ]
    return bool(values) and min(values) > 0 and max(values) > 20 * min(values)


def _draw_profile(axes: "Axes", profile: Profile, appearance: Mapping[str, Look]) -> None:
    for name, entry, shares, area in zip(
        profile.submissions, profile.entries, profile.shares, profile.scores, strict=True
    ):
        look = appearance[name]
        axes.step(
            profile.taus,
            shares,
            where="post",
            color=LIGHT[look.colour],
            marker=MARKERS[look.marker][1],
            markersize=4,
            markevery=20,
            label=verbatim(f"{entry} ({score(area)})"),
        )
    axes.set(xlabel="τ: times the fastest one's time", ylabel="share of workloads")
    axes.set_xlim(1, profile.taus[-1])
    axes.set_ylim(0, 1.03)
    _legend(axes)


_Cost = tuple[str, str, float, float, bool]  # submission, effort, seconds, cost, on the front


def _costs(section: Section, ordinate: Ordinate) -> list[_Cost]:
    found = []
    for row in section.rows:
        cost = row.figures["memory_bytes"] if ordinate == "memory" else row.figures["energy_j"]
        if row.figures["rank"] is not None and cost is not None:
            scaled = cost / (1 << 20) if ordinate == "memory" else cost
            on_front = row.figures["pareto_front"]
            found.append((row.submission, row.effort, row.figures["time_s"], scaled, on_front))
    return found


def _draw_pareto(
    axes: "Axes",
    section: Section,
    costs: Sequence[_Cost],
    ordinate: Ordinate,
    appearance: Mapping[str, Look],
) -> None:
    for name, effort, seconds, cost, on_front in costs:
        look = appearance[name]
        colour = LIGHT[look.colour]
        axes.plot(
            [seconds],
            [cost],
            marker=MARKERS[look.marker][1],
            markersize=7,
            linestyle="none",
            color=colour,
            markerfacecolor=colour if on_front else "none",
            label=_label(section, name, effort),
        )
    axes.margins(0.15, 0.15)
    axes.set(xlabel="median submission time, s")
    axes.set_ylabel("peak memory, MiB" if ordinate == "memory" else "energy, J")
    _legend(axes)


def _draw_leaderboard(axes: "Axes", section: Section, appearance: Mapping[str, Look]) -> None:
    rows = [row for effort in section.efforts for row in section.of_effort(effort)]
    names = []
    for height, row in enumerate(rows):
        figures = row.figures
        look = appearance[row.submission]
        colour, marker = LIGHT[look.colour], MARKERS[look.marker][1]
        rank = "" if figures["rank"] is None else f"{figures['rank']}  "
        names.append(f"{rank}{_label(section, row.submission, row.effort)}")
        if figures["time_s"] is not None:
            axes.plot([figures["fastest_s"], figures["slowest_s"]], [height] * 2, color=colour)
            axes.plot([figures["time_s"]], [height], marker=marker, color=colour)
        elif figures["budget_s"] is not None:  # beyond the budget: an arrow there
            axes.plot(
                [figures["budget_s"]], [height], marker=">", markerfacecolor="none", color=colour
            )
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(left=0)
    axes.set(xlabel="median time to target and range of the runs on target, s (> beyond budget)")


def _label(section: Section, submission: str, effort: str) -> str:
    return verbatim(f"{submission} · {effort}" if len(section.efforts) > 1 else submission)


def _legend(axes: "Axes") -> None:
    axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0)
