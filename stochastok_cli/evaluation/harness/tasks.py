"""Runs tasks of lm-evaluation-harness on a model (extra `lm-eval`)."""

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from stochastok_cli import hub
from stochastok_cli.errors import FAILED, UserError, cannot_import, did_you_mean, first_line
from stochastok_cli.evaluation.base import EvaluatorOutput
from stochastok_cli.evaluation.evaluators.lm_eval import LMEvaluationHarness
from stochastok_cli.evaluation.harness.answers import changed_answers
from stochastok_cli.evaluation.harness.results import TaskRun, metrics_of
from stochastok_cli.evaluation.robustness import Tokenization
from stochastok_cli.evaluation.scoring import LM
from stochastok_cli.models import adapters
from stochastok_cli.models.huggingface import HuggingFaceModel
from stochastok_cli.models.model_sources import ModelSource
from stochastok_cli.progress import no_progress
from stochastok_cli.quiet_libraries import quiet

if TYPE_CHECKING:
    from stochastok_cli.evaluation.harness.retokenizing_lm import RetokenizingLM

_MOST_SEQUENCES = 64  # of a batch, as `HFLM` has it


@dataclass(frozen=True)
class HarnessTasks:
    """Tasks that the harness can load.

    Attributes:
        names: As the user gave them, wildcards resolved: tasks, groups and tags.
        manager: The harness's `TaskManager`.
        sizes: How many questions each task and group has.
    """

    names: list[str]
    manager: Any
    sizes: Mapping[str, int]


def part_name(tokenization: Tokenization, parts: str) -> str:
    """`Metric.part` of results in another tokenization.

    >>> part_name(Tokenization("uniform", 0.5, 8), "both")
    'uniform0.5-both'
    """
    return tokenization.name if parts == "context" else f"{tokenization.name}-{parts}"


def require_harness() -> None:
    """Raises UserError if lm-evaluation-harness, or what its models of transformers need, is not installed."""
    try:
        import lm_eval.models.huggingface  # noqa: F401
    except ImportError as error:
        raise cannot_import("--evaluator lm_eval", "lm_eval", "lm-eval", error) from None


def load_tasks(options: LMEvaluationHarness, parts: str | None) -> HarnessTasks:
    """Loads the tasks with their data.

    Args:
        options: Which ones.
        parts: What is tokenized in another way; None for nothing.

    Raises:
        UserError: The harness is not installed, a task is unknown, its data can't be loaded, it can't be run from
            here, or it has nothing of what is to be tokenized in another way.
    """
    require_harness()
    with quiet_harness(show_progress=False):
        manager, names = _find_tasks(options.tasks, options.include_path)
        loaded = _load(manager, names)
        tasks = loaded["tasks"]
        for name, task in tasks.items():
            _require_possible(name, task, options, parts)
        sizes = {name: min(len(task.eval_docs), options.num_samples or sys.maxsize) for name, task in tasks.items()}
    groups = loaded.get("groups") or {}
    for name, group in groups.items():
        sizes[name] = sum(sizes[leaf] for leaf in _leaves(group, tasks))
    return HarnessTasks(names, manager, sizes)


def _leaves(group: Any, tasks: Mapping[str, Any]) -> list[str]:
    return [task.task_name for task in group.get_all_tasks() if task.task_name in tasks]


def _find_tasks(wanted: Sequence[str], include_path: Path | None) -> tuple[Any, list[str]]:
    """A `TaskManager` that knows the tasks, and their names. The harness's own tasks take seconds to list."""
    from lm_eval.tasks import TaskManager

    folder = None if include_path is None else str(include_path)
    manager = TaskManager(include_path=folder, include_defaults=folder is None)
    if folder is not None and not all(map(manager.match_tasks, ([name] for name in wanted))):
        manager = TaskManager(include_path=folder)
    names: list[str] = []
    for name in wanted:
        matches = sorted(manager.match_tasks([name]))
        if not matches:
            if folder is not None:
                _require_valid_yaml(Path(folder))
            where = "" if folder is None else f", and {folder} adds none of that name"
            raise UserError(
                f"lm-evaluation-harness has no task {name!r}{where}{did_you_mean(name, manager.all_tasks, 0.75)}",
                fix="`lm_eval ls tasks` lists them",
            )
        names += matches
    return manager, list(dict.fromkeys(names))


def _require_valid_yaml(folder: Path) -> None:
    """Raises UserError that names a file of tasks that is no YAML, which the harness passes over."""
    import yaml

    for file in sorted([*folder.rglob("*.yaml"), *folder.rglob("*.yml")]):
        try:
            for _ in yaml.parse(file.read_text(encoding="utf-8", errors="replace")):
                pass
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            line = "" if mark is None else f", line {mark.line + 1}"
            reason = getattr(error, "problem", None) or first_line(error)
            raise UserError(f"--include-path: {file}{line} is no valid YAML: {reason}", exit_code=FAILED) from error


def _load(manager: Any, names: Sequence[str]) -> Any:
    """Loads tasks with their data. Raises UserError that names the task that can't be loaded."""
    try:
        return manager.load(list(names))
    except Exception as error:  # whatever datasets, the network or the code of a task raises
        if len(names) > 1:
            for name in names:
                _load(manager, [name])
        if isinstance(error, StopIteration) or "corresponds to no data" in str(error):
            reason = "a file of its data has no rows"
        else:
            reason = first_line(error)
        raise UserError(
            f"lm-evaluation-harness can't load {', '.join(names)}: {reason}",
            fix="the data of most of its tasks come from the Hub" if isinstance(error, OSError) else "",
            exit_code=FAILED,
        ) from error


def _require_possible(name: str, task: Any, options: LMEvaluationHarness, parts: str | None) -> None:
    """Raises UserError for a task that this model or these options don't fit."""
    if getattr(task, "UNSAFE_CODE", False):
        raise UserError(
            f"{name} runs code that the model writes",
            fix="run it by python -m stochastok_cli.integrations.lm_eval, with --confirm_run_unsafe_code",
        )
    if getattr(task, "MULTIMODAL", False):
        raise UserError(f"{name} shows images or sounds, which the model does not read", fix="leave it out")
    if options.num_fewshot and task.get_config("num_fewshot") == 0:
        raise UserError(f"{name} has no examples before its questions, whatever --num-fewshot says", fix="drop it")
    output = task.OUTPUT_TYPE
    if output == "loglikelihood_rolling" and parts == "context":
        raise UserError(
            f"{name} scores whole texts, which have no context to tokenize in another way",
            fix="give --retokenize continuation or both",
        )
    if output == "generate_until" and parts == "continuation":
        raise UserError(
            f"{name} has the model write its answers, so that only the context can be tokenized in another way",
            fix="give --retokenize context or both",
        )


def evaluate_tasks(
    lm: LM, options: LMEvaluationHarness, tasks: HarnessTasks, tokenization: Tokenization | None, parts: str
) -> EvaluatorOutput:
    """The harness's results, and those in samples of another tokenization, as metrics.

    Args:
        lm: The model. The harness opens its files again by itself; a model that has none is one of `transformers`.
        options: Of the evaluator.
        tasks: From `load_tasks`.
        tokenization: The other one, with the number of samples; None for the canonical one alone.
        parts: What of a request is tokenized in another way.

    Raises:
        UserError: The harness can't open the model or evaluate a task.
    """
    if lm.ranks.world_size > 1:
        raise UserError(
            "--evaluator lm_eval runs in one process",
            fix="drop --devices; `accelerate launch -m stochastok_cli.integrations.lm_eval` uses several GPUs",
        )
    show_progress = lm.progress is not no_progress and sys.stderr.isatty()
    place = lm.device
    if lm.source is not None:
        lm.model.to("cpu")  # the memory of a GPU is for the harness's copy
    try:
        with quiet_harness(show_progress):
            model = _open(lm, parts, place, show_progress)
            if options.apply_chat_template and model.tokenizer.chat_template is None:
                raise UserError("--apply-chat-template: the tokenizer has no chat template", fix="drop it")
            canonical = _run_tasks(model, options, tasks, canonical=True)
            samples: list[TaskRun] = []
            for sample in range(tokenization.samples if tokenization is not None else 0):
                model.set_tokenization(tokenization, sample)
                samples.append(_run_tasks(model, options, tasks, canonical=False))
            part = "" if tokenization is None else part_name(tokenization, parts)
            changed = []
            if samples and parts != "continuation":
                changed = changed_answers(model, canonical.answers, [run.answers for run in samples], part)
    finally:
        lm.model.to(place)
    others = [
        replace(answers, part=part, sample=sample, is_canonical=False)
        for sample, run in enumerate(samples)
        for answers in run.answers.values()
    ]
    return EvaluatorOutput(
        metrics_of(canonical, samples, part),
        answers=[*canonical.answers.values(), *others],
        changed_answers=changed,
        unlogged=canonical.unlogged,
    )


def _open(lm: LM, parts: str, device: torch.device, show_progress: bool) -> "RetokenizingLM":
    from stochastok_cli.evaluation.harness.retokenizing_lm import RetokenizingLM

    batch_size = max(1, min(_MOST_SEQUENCES, lm.batch_tokens // lm.context_window))
    try:
        return RetokenizingLM(
            **(_loaded(lm) if lm.source is None else model_arguments(lm.source)),
            device=str(device),
            batch_size=batch_size,
            retokenize=parts,
            show_progress=show_progress,
        )
    except UserError:
        raise
    except Exception as error:  # whatever transformers or accelerate raises
        raise UserError(f"lm-evaluation-harness can't open the model: {first_line(error)}", exit_code=FAILED) from error


def _loaded(lm: LM) -> dict[str, Any]:
    """A model of `transformers` that a program has loaded, with the tokenizer whose files its vocabulary was read from.

    Raises UserError for another model.
    """
    from transformers import AutoTokenizer

    if not isinstance(lm.model, HuggingFaceModel):
        raise UserError("lm-evaluation-harness opens the files of a model, and this one is only in memory")
    return {"pretrained": lm.model.model, "tokenizer": AutoTokenizer.from_pretrained(lm.vocabulary.name)}


def model_arguments(source: ModelSource) -> dict[str, Any]:
    """The arguments by which `HFLM` opens a model: its files on this machine, never such as could hold a program."""
    folder = hub.model_folder(*hub.parse_repo_id(source.name)) if source.is_on_hub else source.folder
    loading = {"use_safetensors": True, "dtype": source.dtype}
    if adapters.is_adapter(folder):
        return {"pretrained": str(adapters.find_base(folder)), "peft": str(folder), **loading}
    return {"pretrained": str(folder), **loading}


def _run_tasks(
    model: "RetokenizingLM", options: LMEvaluationHarness, tasks: HarnessTasks, *, canonical: bool
) -> TaskRun:
    from lm_eval import simple_evaluate

    try:
        results = simple_evaluate(
            model,
            tasks=tasks.names,
            task_manager=tasks.manager,
            num_fewshot=options.num_fewshot,
            limit=options.num_samples,
            apply_chat_template=options.apply_chat_template,
            log_samples=True,
            **({} if canonical else {"bootstrap_iters": 0}),
        )
    except (UserError, RuntimeError):  # the latter of torch, such as memory that does not suffice
        raise
    except Exception as error:  # whatever the code of a task raises
        raise UserError(f"lm-evaluation-harness: {first_line(error)}", exit_code=FAILED) from error
    return TaskRun.of(results, model.counts)


@contextmanager
def quiet_harness(show_progress: bool) -> Iterator[None]:
    """Keeps what the harness says off the terminal: its log, its messages on stdout, and its progress bars if asked."""
    import tqdm
    from lm_eval import evaluator

    log = logging.getLogger("lm_eval")
    level, begin, commit = log.level, tqdm.tqdm.__init__, evaluator.get_git_commit_hash

    def hidden(bar: Any, *args: Any, **kwargs: Any) -> None:
        begin(bar, *args, **{**kwargs, "disable": True})

    ours = logging.getLogger("stochastok_cli.evaluation.harness.retokenizing_lm")  # its warnings become metrics
    log.setLevel(logging.ERROR)
    ours.setLevel(logging.ERROR)
    evaluator.get_git_commit_hash = lambda: None  # git complains where there is no repository
    if not show_progress:
        tqdm.tqdm.__init__ = hidden
    try:
        with contextlib.redirect_stdout(sys.stderr), quiet("transformers"):
            yield
    finally:
        tqdm.tqdm.__init__ = begin
        evaluator.get_git_commit_hash = commit
        log.setLevel(level)
        ours.setLevel(logging.NOTSET)
