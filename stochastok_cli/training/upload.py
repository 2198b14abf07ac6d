"""A run's model to the Hub, as it lies on the disk: what `transformers` opens, and how it was made."""

from pathlib import Path

from stochastok_cli import hub
from stochastok_cli.models.checkpoint_folders import OPTIMIZER
from stochastok_cli.progress import ProgressCallback, no_progress
from stochastok_cli.training.events import read_metrics
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
    """Uploads a checkpoint of the run in `folder`, without the optimizer's state, and beside it the run's configuration
    and metrics, with a model card that shows them.

    The repository is `repo`, else the run's name at `username` or the logged-in user. `dataset` is what it was trained
    on and `command` how; `again` is the command to name if the upload fails.
    """
    repo = hub.resolve_repo(folder.name, repo=repo, owner=username, retry_command=retry_command)
    files = {file.name: file for file in sorted(checkpoint.iterdir()) if file.name != OPTIMIZER}
    records = {f"run/{name}": folder / name for name in (CONFIG, METRICS) if (folder / name).is_file()}
    card = hub.model_card(
        repo,
        config_yaml=(folder / CONFIG).read_text(encoding="utf-8"),
        metrics=last_metrics(folder),
        command=command,
        made_from=dataset,
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


def last_metrics(folder: Path) -> dict[str, float]:
    """The last value of each of a run's metrics; empty if it has recorded none. (One that wasn't finite is null.)"""
    last = {name: value for record in read_metrics(folder / METRICS) for name, value in record.items()}
    return {name: value for name, value in last.items() if name not in _NOT_SHOWN and value is not None}
