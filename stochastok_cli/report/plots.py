"""What plots have in common: colors, style, axes, legends. They need matplotlib (the extra `report`)."""

import logging
import math
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

from stochastok_cli.errors import cannot_import
from stochastok_cli.report.plot_text import LETTER, literal, text_width

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's colors, which color-blind readers can tell apart."""
GREY = "#767676"
TEXT = "#1b1b1b"
GRID = "#e4e4e4"
LINE_STYLES: Any = ("-", (0, (5, 1.5)), (0, (1, 1)), (0, (5, 1.5, 1, 1.5)))
MARKERS = "os^vPhX"
"""The shapes of the points of lines: as outlines, equal values of two lines both show."""
WIDTH = 6.2
"""The width of a figure in inches."""
LINE = 66
"""Average letters of a legend that fit the width of a figure."""
TITLE_SIZE = 11
LABEL = 40
"""Average letters of a line of a label beside or below the axes."""
STYLE: Any = {
    "font.size": 10,
    "axes.titlesize": TITLE_SIZE,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.grid.axis": "y",
    "grid.color": GRID,
    "text.color": TEXT,
    "axes.edgecolor": GREY,
    "axes.labelcolor": TEXT,
    "xtick.color": GREY,
    "xtick.labelcolor": TEXT,
    "ytick.color": GREY,
    "ytick.labelcolor": TEXT,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "stochastok",
}


class Plot(NamedTuple):
    """A figure, the name of its files, and what stands below it.

    Attributes:
        name: Of its files.
        caption: What is particular to it.
        figure: The figure.
        notes: Sentences that several plots have in common.
    """

    name: str
    caption: str
    figure: "Figure"
    notes: tuple[str, ...] = ()


def require_matplotlib() -> None:
    """Raises UserError where the extra is not installed."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns where it can't write to the home directory
    try:
        import matplotlib  # noqa: F401
    except ImportError as error:
        raise cannot_import("--report", "matplotlib", "report", error) from None


@contextmanager
def plot_style() -> Iterator[None]:
    """The style of all plots, while they are made and while they are saved."""
    import matplotlib

    with matplotlib.rc_context(STYLE), warnings.catch_warnings():
        warnings.filterwarnings("ignore", r"Glyph .* missing from", UserWarning)  # boxes stand for them
        yield


def new_axes(title: str, *, width: float = WIDTH, height: float = 3.4, margins: Any = None) -> "Axes":
    """The axes of a new figure.

    Args:
        title: Of the figure, over its whole width or, with margins, over that of the axes and what is right of them.
        width: Of the figure, in inches.
        height: Of the figure with one line of title, in inches; further lines are added to it.
        margins: Where the axes stand in the figure (`Figure.subplots_adjust`), so that those of several figures are
            aligned; what fits where None.
    """
    from matplotlib.figure import Figure

    left = margins["left"] if margins else 0.1 / width
    letters = 72 * (width * (1 - left) - 0.1) / (LETTER * TITLE_SIZE)
    lines = literal(title, int(0.96 * letters))  # hinting, and the font of a page, can make it a little wider
    whole = height + 0.19 * lines.count("\n")
    figure = Figure(figsize=(width, whole), layout=None if margins else "constrained")
    figure.suptitle(lines, x=left, ha="left", fontsize=TITLE_SIZE)
    if margins:
        heights = {side: margins[side] * height / whole for side in ("bottom", "top")}
        figure.subplots_adjust(**{**margins, **heights})
    return figure.subplots()


def figure_of(axes: "Axes") -> "Figure":
    figure = axes.get_figure(root=True)
    assert figure is not None
    return figure


def color(i: int) -> str:
    return COLORS[i % len(COLORS)]


def color_name(i: int) -> str:
    """What the style of a page calls `color(i)`, which is lighter in the dark."""
    return f"var(--c{i % len(COLORS)})"


def line_style(i: int) -> Any:
    """The style of line i, which tells those of one color apart."""
    return LINE_STYLES[i // len(COLORS) % len(LINE_STYLES)]


def hollow_marker(i: int) -> Any:
    """The style of the points of line i: outlines of different shapes, so that equal values of two lines both show."""
    return {"marker": MARKERS[i % len(MARKERS)], "markerfacecolor": "none"}


def legend_label(text: str) -> str:
    """The text as a label of a legend; legends leave out what begins with an underscore."""
    return literal(f"\u200b{text}" if text.startswith("_") else text, LABEL)


def file_name(label: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "-" for letter in label)


def add_legend(axes: "Axes") -> None:
    """The names of the lines below the axes, in as many columns as fit."""
    handles, labels = axes.get_legend_handles_labels()
    lines = [line for label in labels for line in label.split("\n")]
    columns = max(1, min(3, int(LINE / (max(map(text_width, lines), default=0) + 6))))
    figure = figure_of(axes)
    figure.set_figheight(figure.get_figheight() + 0.2 * math.ceil(len(lines) / columns))
    figure.legend(handles, labels, loc="outside lower left", fontsize=9, ncols=columns)
