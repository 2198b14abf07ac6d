"""How the dataset of a run was expanded: as the run recorded it, or as the dataset says while it is still the same."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from stochastok_cli.config import Config
from stochastok_cli.data.folders import find_dataset
from stochastok_cli.errors import UserError
from stochastok_cli.manifest import Manifest, read_manifest
from stochastok_cli.tokenization.methods import require_method
from stochastok_cli.training.loggers.jsonl import RunStart

ReadManifest = Callable[[Path], Manifest | None]


class RunExpansion(NamedTuple):
    """The expansion that a run trains on.

    Attributes:
        method: The method; None without one, and where it is not known.
        p: The p of the method; None for a fixed rule.
        is_known: Whether method and p are known.
        problem: Why they are not, as a sentence; "" where nothing is wrong.
    """

    method: str | None
    p: float | None
    is_known: bool = True
    problem: str = ""


def manifest_or_none(folder: Path) -> Manifest | None:
    """The manifest of a dataset; None where there is none that can be read."""
    try:
        return read_manifest(folder)
    except (OSError, UserError):
        return None


def recorded_data(starts: Sequence[RunStart], fingerprint: str | None) -> dict[str, Any] | None:
    """What a run has recorded of its dataset when it was started last; None in runs of earlier versions.

    Args:
        starts: Its starts.
        fingerprint: That of the dataset by the latest checkpoint, which the record must have; None without one.
    """
    for start in reversed(starts):
        data = start.data
        if data is not None and isinstance(data.get("fingerprint"), str):
            return data if fingerprint in (None, data["fingerprint"]) else None
    return None


def expansion_of_windows(config: Config) -> RunExpansion | None:
    """Method and p by which training expands windows as they are drawn; None where it takes them as they are."""
    dataset = config.trainer.dataset
    try:
        method = require_method(dataset.expand_method)
    except UserError:  # a method that is no longer there
        return RunExpansion(dataset.expand_method, dataset.expand_prop) if dataset.expand_prop > 0 else None
    if method.takes_p and dataset.expand_prop == 0:
        return None
    return RunExpansion(method.name, dataset.expand_prop if method.takes_p else None)


def expansion_of_dataset(
    config: Config, fingerprint: str | None, recorded: dict[str, Any] | None, read: ReadManifest, run: Path
) -> RunExpansion:
    """Method and p by which the dataset of a run was made.

    A dataset may have been made again, in another way, under the same name, or the name be that of another one where
    the command runs: what its manifest says counts only with the fingerprint of the data that were trained on.

    Args:
        config: The configuration of the run.
        fingerprint: That of the dataset that it trained on, where it is known.
        recorded: See `recorded_data`.
        read: Reads the manifest of a folder.
        run: The folder of the run, for the problem.
    """
    if recorded is not None:
        method, p = recorded.get("method"), recorded.get("p")
        known = isinstance(p, int | float) or p is None
        if "method" not in recorded:
            return RunExpansion(None, None, is_known=False)
        if known and (isinstance(method, str) or method is None):
            return RunExpansion(method, p)
    folder = find_dataset(config.trainer.dataset.name, config.general.paths.data_dir)
    manifest = read(folder)
    if manifest is not None and fingerprint in (None, manifest.fingerprint):
        return RunExpansion(*manifest.expansion)
    if fingerprint is None:
        return RunExpansion(None, None, is_known=False)
    if manifest is not None:
        reason = f"{folder} was made again since with other content"
    elif folder.is_dir():
        reason = f"{folder} has no manifest that can be read"
    else:
        reason = f"its data are not in {folder}"
    problem = f"{run}: the expansion of its data is unknown, since the run did not record it and {reason}"
    return RunExpansion(None, None, is_known=False, problem=problem)
