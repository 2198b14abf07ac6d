"""Plots as elements of a page."""

import html
import io
import re
from typing import TYPE_CHECKING

from stochastok_cli.report.plots import COLORS, GRID, TEXT, color_name

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_TAG = re.compile(r"<[^>]+>")  # not the text of labels, which may look like an attribute
_PAGE_COLORS = {
    TEXT.lower(): "currentColor",
    GRID.lower(): "var(--grid)",
    **{one.lower(): color_name(k) for k, one in enumerate(COLORS)},
}
_ID = re.compile(r' id="|href="#|url\(#')


def page_svg(figure: "Figure") -> str:
    """A figure as an element of a page: without a header or links, its text as text, in the colors of the page."""
    import matplotlib

    text = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with matplotlib.rc_context({"svg.fonttype": "none"}):
        figure.savefig(text, format="svg", transparent=True, metadata=no_metadata)
    svg = text.getvalue()
    return _TAG.sub(lambda match: _page_tag(match[0]), svg[svg.index("<svg") :])


def _page_tag(tag: str) -> str:
    """A tag of a drawing as it stands on a page; its path in hundredths of a point."""
    for name in (' xmlns="http://www.w3.org/2000/svg"', ' xmlns:xlink="http://www.w3.org/1999/xlink"'):
        tag = tag.replace(name, "")
    for fixed, of_page in _PAGE_COLORS.items():
        tag = tag.replace(f": {fixed}", f": {of_page}")
    tag = re.sub(r' d="[^"]*"', lambda match: re.sub(r"(\.\d\d)\d+", r"\1", match[0]), tag)
    return tag.replace("xlink:href=", "href=")


def with_unique_ids(svg: str, prefix: str) -> str:
    """A drawing with a prefix before its ids, since one page holds several drawings."""
    prefix = html.escape(prefix)
    return _TAG.sub(lambda tag: _ID.sub(lambda mark: f"{mark[0]}{prefix}-", tag[0]), svg)
