"""Finds a dataset on the Hub: the commit, its license, and the arguments with which `datasets` loads a subset of it."""

from collections.abc import Callable
from typing import Any

from stochastok_cli.errors import UserError, did_you_mean, one_line
from stochastok_cli.hub.client import Result, require_listing, retry

CONVERTED = "refs/convert/parquet"  # the revision where the Hub keeps its conversion of a dataset to parquet files


def license_in(info: Any) -> str | None:
    """The license that the card of a dataset states, as an identifier of the Hub (`cc0-1.0`).

    `info` is the `DatasetInfo` of `huggingface_hub`.
    """
    license = getattr(info.card_data, "license", None)
    return license if isinstance(license, str) else None


def locate_dataset(repo: str, revision: str | None, subset: str | None) -> tuple[Any, dict[str, Any]]:
    """Requests the information on a dataset repository from the Hub.

    A dataset that a script of its own loads is taken from the parquet files to which the Hub has converted it, one
    folder per subset: the script is somebody's code and is never run.

    Returns:
        The `DatasetInfo` of the commit, and the arguments of `datasets.load_dataset` that select the subset there.

    Raises:
        UserError: there is no such subset, or the dataset has a script and is not converted.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RevisionNotFoundError

    def dataset_info(revision: str | None) -> Any:
        info = retry(lambda: HfApi().dataset_info(repo, revision=revision, timeout=10))
        require_listing(info, repo)
        return info

    info = dataset_info(revision)
    if f"{repo.split('/')[-1]}.py" not in (file.rfilename for file in info.siblings or []):
        return info, {"name": subset, "revision": info.sha}
    not_converted = UserError(
        f"{repo} is loaded by a script of its own, which is not run", fix="download its files and name them instead"
    )
    if revision is not None:
        raise not_converted
    try:
        converted = dataset_info(CONVERTED)
    except RevisionNotFoundError:
        raise not_converted from None
    files = [file.rfilename for file in converted.siblings or []]
    folders = sorted({file.split("/")[0] for file in files if "/" in file})
    folder = subset or (folders[0] if len(folders) == 1 else "default")
    if folder not in folders:
        problem = f"no subset {subset!r}{did_you_mean(subset, folders)}" if subset else "several subsets"
        raise UserError(f"{repo} has {problem}", fix=f"there are: {', '.join(folders)}")
    if any(file.startswith(f"{folder}/partial-") for file in files):  # the Hub has converted only the beginning
        raise not_converted
    converted.card_data = info.card_data
    return converted, {"data_dir": folder, "revision": converted.sha}


def explain_value_error(repo: str, load: Callable[[], Result]) -> Result:
    """Returns `load()`. A ValueError, which `datasets` raises for an unknown subset or split, becomes a UserError."""
    try:
        return load()
    except ValueError as error:
        if type(error) is not ValueError:  # many other exceptions of the libraries are ValueErrors too
            raise
        message = one_line(str(error).split("\nExample")[0])
        raise UserError(f"{repo} on the Hub: {message}") from error
