"""Uploads the model of a run to the Hugging Face Hub, with its configuration, metrics and a model card."""

from pathlib import Path

from stochastok_cli import hub
from stochastok_cli.models.checkpoint_reader import is_optimizer_file
from stochastok_cli.models.weight_files import ADAPTER_CONFIG, read_json
from stochastok_cli.models.weight_files import CONFIG as CONFIG_OF_MODEL
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.training.loggers.jsonl import read_metrics
from stochastok_cli.training.run_dir import CONFIG, METRICS

_NOT_SHOWN = ("iteration", "train/tokens_per_second")


def push_run(
    folder: Path,
    checkpoint: Path,
    *,
    dataset: str,
    command: str,
    repo: str | None,
    username: str | None,
    private: bool,
    retry_command: str,
    progress: ProgressCallback = no_progress,
) -> hub.PushResult:
    """Uploads a checkpoint without the optimizer's state, the run's configuration and metrics, and a model card.

    Args:
        folder: The run's folder.
        checkpoint: The checkpoint to upload.
        dataset: The dataset that the card names.
        command: The command that the card shows.
        repo: The repository; None for the run's name at `username`.
        username: The owner; None for the logged-in user.
        private: Whether a new repository is private.
        retry_command: The command that an error proposes.
        progress: Called with what has been uploaded.

    Returns:
        The repository and what was uploaded.

    Raises:
        UserError: The upload failed.
    """
    repo = hub.resolve_repo(folder.name, repo=repo, owner=username, retry_command=retry_command)
    paths = {file.relative_to(checkpoint).as_posix(): file for file in sorted(checkpoint.rglob("*")) if file.is_file()}
    files = {name: file for name, file in paths.items() if not is_optimizer_file(name)}
    records = {f"run/{name}": folder / name for name in (CONFIG, METRICS) if (folder / name).is_file()}
    card = hub.model_card(
        repo,
        config_yaml=(folder / CONFIG).read_text(encoding="utf-8"),
        metrics=last_metrics(folder),
        command=command,
        made_from=dataset,
        model_type=_entry(checkpoint / CONFIG_OF_MODEL, "model_type"),
        base_model=_entry(checkpoint / ADAPTER_CONFIG, "base_model_name_or_path"),
    )
    return hub.push_folder(
        repo,
        {**files, **records},
        card=card,
        retry_command=retry_command,
        repo_type="model",
        private=private,
        progress=progress,
    )


def _entry(file: Path, key: str) -> str | None:
    """A text in a JSON file; None where there is no such file or no such text."""
    value = read_json(file).get(key) if file.is_file() else None
    return value if isinstance(value, str) else None


def last_metrics(folder: Path) -> dict[str, float]:
    """The last value of each metric of a run, without those that were not finite."""
    last = {name: value for record in read_metrics(folder / METRICS) for name, value in record.items()}
    return {name: value for name, value in last.items() if name not in _NOT_SHOWN and value is not None}
