"""Runs the stages that make a folder, or leaves them to Slurm."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from datatrove.pipeline.base import PipelineStep

from stochastok_cli import __version__
from stochastok_cli.artifacts import Artifact
from stochastok_cli.atomic_writes import write_atomically
from stochastok_cli.errors import FAILED, INTERRUPTED, USAGE, UserError, count_of
from stochastok_cli.integrations.datatrove.executors import (
    Stage,
    TaskFailed,
    Tasks,
    jobs_in_queue,
    run_stage,
    submit_stages,
)
from stochastok_cli.integrations.datatrove.parts import work_folder
from stochastok_cli.json_files import json_bytes
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


class Progress:
    """What the tasks that make a folder leave for a later run of the same command.

    Args:
        final: the folder that is made, under its final name.
    """

    def __init__(self, final: Path):
        self.final, self.folder = final, work_folder(final)
        self._plan, self._jobs = self.folder / "plan.json", self.folder / "jobs.json"

    def begin(self, plan: dict[str, Any]) -> None:
        """Keeps what a run with the same plan has done, and discards anything else.

        Raises:
            UserError: jobs that make the folder are waiting or running.
        """
        submitted = json.loads(self._jobs.read_bytes()) if self._jobs.is_file() else []
        if jobs := jobs_in_queue(submitted):
            named = f"job{'s' if len(jobs) > 1 else ''} {' '.join(jobs)}"
            fix = f"wait for {'them' if len(jobs) > 1 else 'it'}, or: scancel {' '.join(jobs)}"
            raise UserError(f"{self.final} is already submitted as {named}", fix=fix, exit_code=FAILED)
        content = json_bytes({**plan, "version": __version__})
        if not self._plan.is_file() or self._plan.read_bytes() != content:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder.mkdir(parents=True)
            self._plan.write_bytes(content)

    def submit(self, stages: list[Stage], tasks: Tasks) -> str:
        """Submits the stages to Slurm and returns the id of the last job; the ids are kept for `begin`."""
        jobs: list[str] = []
        for job in submit_stages(stages, tasks, self.folder, self.final.name):
            jobs.append(job)
            write_atomically(self._jobs, json_bytes(jobs))
        return jobs[-1]

    def after(self, error: UserError | KeyboardInterrupt) -> UserError | KeyboardInterrupt:
        """The error that ends a run. Removes what no later run could use, and says what is kept.

        An error in the use is corrected in the source or the options, after which all tasks run again.
        """
        if isinstance(error, TaskFailed) or self._jobs.is_file():
            return error
        exit_code = error.exit_code if isinstance(error, UserError) else INTERRUPTED
        completed = len([*self.folder.glob("logs/*/completions/*")])
        if exit_code == USAGE or not completed:
            shutil.rmtree(self.folder, ignore_errors=True)
        elif isinstance(error, UserError):
            done = count_of(completed, "completed task needs", "completed tasks need")
            fix = f"{done} not run again if the source stays as it is ({self.folder})"
            return UserError(str(error), fix=fix, exit_code=exit_code)
        return error


class Pipeline:
    """Runs the stages that make a folder.

    Args:
        tasks: where and in how many tasks the stages run.
    """

    def __init__(self, tasks: Tasks):
        self.tasks = tasks
        self._kept: Progress | None = None

    def run(
        self,
        stages: list[Stage],
        finish: PipelineStep,
        plan: dict[str, Any],
        final: Path,
        progress: ProgressCallback,
    ) -> None:
        """Runs the stages, or raises `LeftToSlurm`. What an interrupted run with the same plan has done is kept.

        Args:
            stages: the stages.
            finish: the last step on Slurm, which makes the folder.
            plan: what decides the results of the tasks, but their number.
            final: the folder that is made, under its final name.
            progress: called with the number of tasks that are completed.
        """
        tasks = self.tasks
        if tasks.executor == "slurm" and shutil.which("sbatch") is None:
            raise UserError("sbatch is not installed here", fix="run it on a node from which jobs are submitted")
        kept = Progress(final)
        kept.begin({**plan, "tasks": tasks.tasks})
        self._kept = kept
        if tasks.executor != "slurm":
            for stage in stages:
                run_stage(stage, tasks, kept.folder, progress)
            return
        last = Stage("finish", [finish], tasks=1)
        raise LeftToSlurm(kept.final, lambda: kept.submit([*stages, last], tasks))

    def make(self, make: Callable[[], Artifact]) -> Artifact | Submitted:
        """The folder that `make` makes, which calls `run`, without the progress; or what it has left to Slurm."""
        try:
            try:
                made = make()
            except LeftToSlurm as left:
                return Submitted(left.folder, left.submit())
        except (UserError, KeyboardInterrupt) as error:
            raise self._kept.after(error) if self._kept else error from None
        shutil.rmtree(work_folder(made.path), ignore_errors=True)
        return made
