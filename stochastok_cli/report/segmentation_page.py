"""A page to play with: the segmentations of one text, and what every expansion method makes of them.

The page is one HTML file that loads nothing: styles, scripts and the tables of the text are in it. The files of
`assets/segmentation_page` are its parts; `segmentation_tables` makes the tables.
"""

import base64
import hashlib
import html
import importlib.resources
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.paths import nearest_existing_path
from stochastok_cli.report.segmentation_tables import page_data
from stochastok_cli.tokenization.samples import note_lost_text
from stochastok_cli.tokenization.vocabulary import Vocabulary

LAWS = ("random.js", "tables.js", "splits.js", "walks.js", "uniform_k.js", "pretokens.js", "laws.js")
VIEWS = ("format.js", "samples.js", "lattice.js", "distribution.js", "growth.js", "page.js")
"""The scripts in the order in which they run: what needs no document, and what is shown."""


def segmentation_page(text: str, methods: Sequence[str], vocabulary: Vocabulary, **settings: Any) -> str:
    """The HTML of the page; the arguments are those of `page_data`."""
    data = page_data(text, methods, vocabulary, **settings)
    note_lost_text(vocabulary, vocabulary.encode(text))
    folder = importlib.resources.files("stochastok_cli") / "assets" / "segmentation_page"
    style, *scripts = ((folder / name).read_text(encoding="utf-8") for name in ("style.css", *LAWS, *VIEWS))
    policy = (
        f"default-src 'none'; script-src {' '.join(map(_csp_hash, scripts))}; style-src {_csp_hash(style)}; "
        "base-uri 'none'; form-action 'none'"
    )
    shown = text if len(text) <= 60 else f"{text[:59]}…"
    values = {
        "POLICY": policy,
        "TITLE": html.escape(f"Segmentations of “{' '.join(shown.split())}”"),
        "STYLE": style,
        "DATA": _json_for_script(data),
        "SCRIPTS": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    pieces = (folder / "page.html").read_text(encoding="utf-8").split("@@")  # text and names, in turns
    return "".join(values[piece] if i % 2 else piece for i, piece in enumerate(pieces))


def _csp_hash(content: str) -> str:
    """The source expression of a content security policy that allows one inline script or style."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"


def _json_for_script(data: Any) -> str:
    """JSON that can stand in a `<script>` element: no `<`, so that nothing in it ends the element."""
    text = json.dumps(data, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", r"\u003c").replace(">", r"\u003e").replace("&", r"\u0026")


def write_page(file: Path, content: str, *, force: bool = False) -> bool:
    """Writes a page, or leaves the file alone if it has this content already.

    Returns:
        Whether it was written.

    Raises:
        UserError: the file has another content and `force` is not given, it is no regular file, or it can't be
            written.
    """
    page = content.encode()
    try:
        if file.is_dir():
            raise UserError(f"--html {file} is a folder", fix="name a file, such as page.html")
        if file.exists() and not file.is_file():
            raise UserError(f"--html {file} is a device or a pipe", fix="name a file, such as page.html")
        if not (above := nearest_existing_path(file.parent)).is_dir():
            raise UserError(f"--html {file}: {above} is a file", fix="name a file in a folder")
        if file.exists() and not force:
            if file.read_bytes() == page:
                return False
            raise UserError(f"{file} exists and has another content", fix="give another name, or --force to replace it")
        file = file.resolve()  # a link stays
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, page)
    except OSError as error:
        raise UserError(f"{file} can't be written: {error.strerror}", exit_code=FAILED) from None
    return True
