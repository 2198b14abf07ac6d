"""Texts of plots in lines that fit, by the widths that letters have: names of runs and of questions can be long."""

import functools
import itertools
import re
from collections.abc import Sequence

LETTER = 0.6
"""The width of an average letter, as a part of the size of the font."""
LINE_HEIGHT = 0.175
"""Of a line of a label, in inches."""
_PART = re.compile(r"[^\s/_-]*[\s/_-]|[^\s/_-]+")


def literal(text: str, letters: int) -> str:
    """The text in lines as wide as so many average letters, with dollar signs that matplotlib takes for no formulas.

    A line ends after a space, a hyphen, an underscore or a slash, and within a word that is wider than a line.
    """
    lines: list[str] = []
    line = ""
    for part in _PART.findall(" ".join(text.split())):
        if line and text_width(line + part.rstrip()) > letters:
            lines.append(line)
            line = ""
        while text_width(part.rstrip()) > letters:
            fitting = next(n for n in itertools.count(1) if text_width(part[: n + 1]) > letters)
            lines.append(part[:fitting])
            part = part[fitting:]
        line += part
    return "\n".join(one.rstrip() for one in (*lines, line)).strip("\n").replace("$", r"\$")


@functools.lru_cache(maxsize=4096)
def text_width(text: str) -> float:
    """The width of a line of text, in average letters."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import text_to_path

    size = text_to_path.FONT_SCALE
    width, _, _ = text_to_path.get_text_width_height_descent(text, FontProperties(size=size), ismath=False)
    return width / (LETTER * size)


def rows_of_labels(labels: Sequence[str], height: float) -> tuple[list[float], float]:
    """Where rows of a plot stand, so that the lines of one label do not run into another.

    Args:
        labels: One for each row, from top to bottom, in lines.
        height: The least height of a row, in inches.

    Returns:
        The middle of each row below the top of the axes, and the height of all rows, in inches.

    >>> rows_of_labels(["one line", "four\\nlines\\nof\\ntext"], 0.5)
    ([0.25, 0.88], 1.26)
    """
    heights = [max(height, LINE_HEIGHT * (label.count("\n") + 1) + 0.06) for label in labels]
    ends = list(itertools.accumulate(heights))
    return [round(end - own / 2, 6) for end, own in zip(ends, heights, strict=True)], round(sum(heights), 6)
