"""Keeps the libraries of Hugging Face quiet while this package calls them, and leaves them as they were."""

import importlib
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

LEVELS = {"huggingface_hub": logging.CRITICAL, "datasets": logging.CRITICAL, "transformers": logging.ERROR}
"""What a quiet library still logs. `huggingface_hub` and `datasets` log what they raise, and each failed attempt."""
ENVIRONMENT = {
    "DATASETS_VERBOSITY": "critical",
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_VERBOSITY": "critical",
    "TRANSFORMERS_VERBOSITY": "error",
}
"""Variables with which the libraries are quiet from their import on, for a process of our own."""

_lock = threading.Lock()
_callers: Counter[str] = Counter()
_restore: dict[str, Callable[[], None]] = {}


@contextmanager
def quiet(*libraries: str) -> Iterator[None]:
    """A context in which libraries log nothing below their level of LEVELS and show no progress bars.

    Contexts may overlap in any order, as those of generators and threads do: the last one to end restores what was
    before the first.

    Args:
        libraries: some of LEVELS. They are imported, since they set their levels when they are.
    """
    with ExitStack() as stack:
        for library in libraries:
            importlib.import_module(library)
            with _lock:
                if not _callers[library]:
                    _restore[library] = _silence(library)
                _callers[library] += 1
            stack.callback(_release, library)
        yield


def _release(library: str) -> None:
    with _lock:
        _callers[library] -= 1
        if not _callers[library]:
            _restore.pop(library)()


def _silence(library: str) -> Callable[[], None]:
    """Silences a library and returns what restores its state."""
    shown, show, hide = _progress_bars(library)
    logger = logging.getLogger(library)
    level = logger.level
    logger.setLevel(LEVELS[library])
    if shown:
        hide()

    def restore() -> None:
        logger.setLevel(level)
        if shown:
            show()

    return restore


def _progress_bars(library: str) -> tuple[bool, Callable[[], object], Callable[[], object]]:
    """Whether a library shows progress bars, and what turns them on and off."""
    from huggingface_hub import utils as hub

    if library == "huggingface_hub":
        importlib.import_module("huggingface_hub.utils.logging")  # sets the level when it is imported
        return not hub.are_progress_bars_disabled(), hub.enable_progress_bars, hub.disable_progress_bars
    if library == "datasets":
        import datasets

        return not datasets.are_progress_bars_disabled(), datasets.enable_progress_bars, datasets.disable_progress_bars
    from transformers.utils import logging as bars

    def leaving_those_of_the_hub(switch: Callable[[], object]) -> None:
        shown = not hub.are_progress_bars_disabled()
        switch()  # turns those of `huggingface_hub` on or off as well
        if shown != (not hub.are_progress_bars_disabled()):
            (hub.enable_progress_bars if shown else hub.disable_progress_bars)()

    return (
        bars.is_progress_bar_enabled(),
        lambda: leaving_those_of_the_hub(bars.enable_progress_bar),
        lambda: leaving_those_of_the_hub(bars.disable_progress_bar),
    )
