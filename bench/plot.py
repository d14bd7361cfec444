"""Plots of the measurements, as SVG."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_WIDTH: Final = 9.0  # inches
_BAR: Final = 0.32
_PANEL: Final = 2.6
_COLOUR: Final = "#1f5fa8"

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Bars:
    """A bar of each median, with its range: (name, lowest, median, highest)."""

    bars: Sequence[tuple[str, float, float, float]]
    unit: str


@dataclass(frozen=True, slots=True)
class Lines:
    """A panel of each title, all over one axis: of points, or of named curves of points."""

    across: str
    panels: Mapping[str, Points | Mapping[str, Points]]
    logarithmic: bool = False


def draw(drawn: Bars | Lines, title: str, path: Path) -> None:
    """Write the plot as SVG."""
    figure = _bars(drawn) if isinstance(drawn, Bars) else _lines(drawn)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(path, format="svg", metadata={"Date": None})


def _figure(height: float) -> "Figure":
    # Half a second of imports, which only a run that draws has to wait for.
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "order-worker"  # the same plot of the same figures
    mpl.rcParams["svg.fonttype"] = "none"  # text stays text
    return Figure(figsize=(_WIDTH, height), layout="constrained")


def _bars(drawn: Bars) -> "Figure":
    figure = _figure(0.9 + _BAR * len(drawn.bars))
    axes = figure.subplots()
    names, lowest, medians, highest = zip(*drawn.bars, strict=True)
    below = [middle - low for low, middle in zip(lowest, medians, strict=True)]
    above = [high - middle for middle, high in zip(medians, highest, strict=True)]
    axes.barh(names, medians, xerr=(below, above), color=_COLOUR, ecolor="#444", height=0.65)
    for name, high, middle in zip(names, highest, medians, strict=True):
        axes.annotate(f" {middle:,.0f}", (high, name), va="center", fontsize=8)
    axes.invert_yaxis()
    axes.set_xlabel(f"{drawn.unit}: median and range")
    axes.margins(x=0.12)
    _tidy(axes)
    return figure


def _lines(drawn: Lines) -> "Figure":
    count = len(drawn.panels)
    figure = _figure(0.6 + _PANEL * count)
    panels = figure.subplots(count, 1, sharex=True, squeeze=False)[:, 0]
    for axes, (title, curves) in zip(panels, drawn.panels.items(), strict=True):
        for name, points in (curves if isinstance(curves, Mapping) else {"": curves}).items():
            axes.plot(*zip(*points, strict=True), label=name, linewidth=1.2)
        axes.set_title(title, loc="left", fontsize=9)
        if isinstance(curves, Mapping):
            axes.legend(fontsize=8, frameon=False)
        if drawn.logarithmic:
            axes.set_yscale("log")
        else:
            axes.set_ylim(bottom=0)
        _tidy(axes)
    panels[-1].set_xlabel(drawn.across)
    return figure


def _tidy(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.tick_params(labelsize=8)
    axes.grid(alpha=0.3, linewidth=0.5)
    axes.set_axisbelow(True)
