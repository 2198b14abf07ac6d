"""Runs the stages that make a folder, or leaves them to Slurm."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.pipeline.base import PipelineStep

from stochastok_cli import __version__
from stochastok_cli.artifacts import Artifact, json_bytes
from stochastok_cli.errors import UserError
from stochastok_cli.integrations.datatrove.executors import Stage, Tasks, run_stage, submit_stages
from stochastok_cli.integrations.datatrove.parts import WORK_SUFFIX, work_folder
from stochastok_cli.progress import ProgressCallback


class Submitted(NamedTuple):
    """What is left to Slurm: the folder that will be made, and the id of the job that makes it."""

    path: Path
    job: str


class LeftToSlurm(Exception):
    """Ends the making of a folder in this process, whose lock the jobs that will make it need.

    Args:
        folder: the folder.
        submit: submits the jobs and returns the id of the last one.
    """

    def __init__(self, folder: Path, submit: Callable[[], str]):
        super().__init__(folder)
        self.folder, self.submit = folder, submit


def run_stages(
    stages: list[Stage],
    finish: PipelineStep,
    plan: dict[str, Any],
    tasks: Tasks,
    work: Path,
    progress: ProgressCallback,
) -> None:
    """Runs the stages, or raises `LeftToSlurm`. What an interrupted run with the same plan has done is kept.

    Args:
        stages: the stages.
        finish: the last step on Slurm, which makes the folder.
        plan: what decides the results of the tasks.
        tasks: where and in how many tasks the stages run.
        work: where the tasks keep their progress.
        progress: called with the number of tasks that are completed.
    """
    if tasks.executor == "slurm" and shutil.which("sbatch") is None:
        raise UserError("sbatch is not installed here", fix="run it on a node from which jobs are submitted")
    content, plan_file = json_bytes({**plan, "version": __version__}), work / "plan.json"
    if not plan_file.is_file() or plan_file.read_bytes() != content:
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        plan_file.write_bytes(content)
    if tasks.executor != "slurm":
        for stage in stages:
            run_stage(stage, tasks, work, progress)
        return
    last = Stage("finish", [finish], tasks=1)
    final = work.with_name(work.name.removeprefix(".").removesuffix(WORK_SUFFIX))
    raise LeftToSlurm(final, lambda: submit_stages([*stages, last], tasks, work, final.name))


def made_here(make: Callable[[], Artifact]) -> Artifact | Submitted:
    """The folder that `make` makes, without the progress of its tasks; or what it has left to Slurm."""
    try:
        made = make()
    except LeftToSlurm as left:
        return Submitted(left.folder, left.submit())
    shutil.rmtree(work_folder(made.path), ignore_errors=True)
    return made
