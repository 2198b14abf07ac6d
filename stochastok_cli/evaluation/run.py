"""The one runner of evaluations: the command line, training and Python use it."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from functools import reduce
from operator import add
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from stochastok_cli.argument_checks import optional, path_like, require_each, string, whole_number, yes_or_no
from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.errors import UserError, did_you_mean
from stochastok_cli.evaluation.base import BATCH_TOKENS, Evaluator, EvaluatorOutput, LoadedEvaluator
from stochastok_cli.evaluation.benchmarks import benchmark_specs
from stochastok_cli.evaluation.registry import EVALUATORS, make_evaluator, options_of
from stochastok_cli.evaluation.results import EvalResult
from stochastok_cli.models.checkpoint_reader import iteration_of
from stochastok_cli.models.intact_checkpoints import find_local_checkpoint
from stochastok_cli.paths import require_path
from stochastok_cli.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from stochastok_cli.evaluation.generated_texts import GeneratedText
    from stochastok_cli.evaluation.sample_log import SampleLog
    from stochastok_cli.evaluation.scoring import LM, Ranks
    from stochastok_cli.models.base import CausalLM
    from stochastok_cli.models.model_sources import ModelSource
    from stochastok_cli.tokenization.vocabulary import Vocabulary

    ModelLike = str | Path | PreTrainedModel
    """A path, a name of a run, an id on the Hub, or a loaded model of `transformers`."""

EvaluatorLike = Evaluator | EvaluatorConfig | Mapping[str, Any] | str
"""An evaluator, a task, or its options with its name under "evaluator" as in `trainer.eval`.

A task is a benchmark of multiple choice ("langgame-val", "mine=questions.jsonl"), the name of an evaluator
("alignment"), or both ("generation:cute,langgame-val", "bits_per_byte:sample-tokenized", "lm_eval:arc_easy")."""


def evaluate(
    checkpoints: "ModelLike | Sequence[ModelLike]",
    evaluators: EvaluatorLike | Sequence[EvaluatorLike],
    *,
    tokenizer: Any = None,
    tokenization: str | None = None,
    samples: int | None = None,
    num_samples: int | None = None,
    data_dir: str | Path = "data",
    checkpoint_dir: str | Path = "checkpoints",
    device: str = "auto",
    dtype: str = "auto",
    batch_tokens: int | None = None,
    paired: bool = False,
    num_texts: int = 0,
    log_samples: str | Path | None = None,
    progress: ProgressCallback = no_progress,
    on_result: Callable[[EvalResult], None] | None = None,
    ranks: "Ranks | None" = None,
) -> list[EvalResult]:
    """Evaluates one or more models.

    Args:
        checkpoints: Paths, or names of runs under `checkpoint_dir`; a run means its latest checkpoint. With the extra
            `hf` also other models: their folders, ids on the Hub, or loaded models of `transformers`.
        evaluators: Tasks such as "langgame-val", "generation:cute" or "alignment" (see `EvaluatorLike`), evaluators, or
            mappings like the entries of `trainer.eval`: `{"evaluator": "mcq", "benchmarks": ["arc"]}`, with any option
            of the evaluator.
        tokenizer: That of loaded models.
        tokenization: Other tokenizations, too, in every task that is given as a text: "uniform:0.5".
        samples: How many other tokenizations, likewise.
        num_samples: How many questions of each benchmark, likewise.
        data_dir: The folder of all data.
        checkpoint_dir: The folder of all runs.
        device: "auto" (CUDA where there is a GPU), "cpu" or "cuda".
        dtype: The type in which weights are loaded: "float32", "bfloat16", "float16" or "auto", the type in which they
            are stored on a GPU, and float32 on a CPU. Loaded models keep their own.
        batch_tokens: Tokens in a batch, padding included; fewer need less memory.
        paired: The results will be compared question by question: refuse what can't be, before anything is scored.
        num_texts: How many short documents are sampled from each model (`EvalResult.texts`), always with one seed.
        log_samples: A file of JSON lines for the answer to each question in every tokenization (see `SampleLog`).
        progress: Called with a description, how much is done, and the total.
        on_result: Called with each result as soon as it is there.
        ranks: The processes that share the work, if there are several. All of them call this with equal arguments, and
            get the same results; "cuda" is the GPU that each has chosen as its own.

    Returns:
        One result per checkpoint, in their order.

    Raises:
        UserError: An option, a checkpoint, a benchmark or its data is not usable, for any of the checkpoints.
        SamplesNotWritten: The file of `log_samples` could not be written. It has the results, which are whole.

    Example:
        [result] = evaluate("my-run", ["langgame-val", "generation:cute"], tokenization="uniform:0.5", samples=4)
        result.values["mcq/langgame-val/uniform0.5/worst_case"]
    """
    root = require_path(data_dir, "data_dir")
    path_like("checkpoint_dir", checkpoint_dir)
    require_each(string, device=device, dtype=dtype)
    optional(string)("tokenization", tokenization)
    optional(path_like)("log_samples", log_samples)
    samples = optional(whole_number)("samples", samples)
    num_samples = optional(whole_number)("num_samples", num_samples)
    batch_tokens = optional(whole_number)("batch_tokens", batch_tokens, minimum=1)
    paired, num_texts = yes_or_no("paired", paired), whole_number("num_texts", num_texts, minimum=0)
    for_texts = {"tokenization": tokenization, "samples": samples, "num_samples": num_samples}
    chosen = [as_evaluator(entry, for_texts) for entry in _as_list(evaluators)]
    models = _as_list(checkpoints)
    if not models:
        raise UserError("evaluate: there is no checkpoint", fix="give one or more")
    if not chosen:
        raise UserError("evaluate: there is no task", fix="give a task, for example 'langgame-val'")
    if log_samples is not None:
        _require_answers(chosen)
    torch_device = choose_device(device)
    if dtype != "auto" and not all(isinstance(one, str | Path) for one in models):
        raise UserError("dtype is for models that are opened", fix="convert a loaded model with model.to(dtype)")
    from stochastok_cli.evaluation.models_in_memory import in_memory
    from stochastok_cli.evaluation.sample_log import SampleLog

    with ExitStack() as stack:
        log = None
        if log_samples is not None and (ranks is None or ranks.rank == 0):
            log = stack.enter_context(SampleLog(Path(log_samples)))
        sources = [
            (find_model(str(one), Path(checkpoint_dir), dtype), None)
            if isinstance(one, str | Path)
            else stack.enter_context(in_memory(one, tokenizer))
            for one in models
        ]
        results = _evaluate_sources(
            sources,
            chosen,
            data_dir=root,
            device=torch_device,
            batch_tokens=batch_tokens,
            paired=paired,
            num_texts=num_texts,
            log=log,
            progress=progress,
            on_result=on_result,
            ranks=ranks,
        )
    if log is not None and log.problem is not None:
        log.problem.results = results
        raise log.problem
    return results


def _evaluate_sources(
    sources: "Sequence[tuple[ModelSource, CausalLM | None]]",
    evaluators: Sequence[Evaluator],
    *,
    data_dir: Path,
    device: str,
    batch_tokens: int | None,
    paired: bool,
    num_texts: int,
    log: "SampleLog | None",
    progress: ProgressCallback,
    on_result: Callable[[EvalResult], None] | None,
    ranks: "Ranks | None",
) -> list[EvalResult]:
    """The results of models, each with itself where it is loaded already. The other arguments are as in `evaluate`."""
    from stochastok_cli.evaluation.prompts import ids_before_texts
    from stochastok_cli.evaluation.scoring import LM, SINGLE_PROCESS
    from stochastok_cli.models.model_sources import open_model
    from stochastok_cli.tokenization.loaders import load_vocabulary

    labels = run_labels([Path(source.name) for source, _ in sources])
    vocabularies = [load_vocabulary(source.folder) for source, _ in sources]
    if paired:
        _require_pairs(evaluators, vocabularies)
    for evaluator in evaluators:
        evaluator.check_models(vocabularies)
    by_model = any(evaluator.reads_model_files for evaluator in evaluators)
    keys = [
        (vocabulary.fingerprint, one.context_window, str(one.folder) if by_model else str(ids_before_texts(one.folder)))
        for vocabulary, (one, _) in zip(vocabularies, sources, strict=True)
    ]
    loaded: dict[tuple[str, int, str], list[LoadedEvaluator]] = {}  # tokenized once for equal tokenizers
    for key, vocabulary in zip(keys, vocabularies, strict=True):
        if key not in loaded:
            loaded[key] = load_evaluators(evaluators, data_dir, vocabulary, key[1], progress=progress)
    results: list[EvalResult] = []
    from_first_model: dict[Any, Any] = {}
    for (source, opened), label, key, vocabulary in zip(sources, labels, keys, vocabularies, strict=True):
        model = open_model(source, vocabulary, device) if opened is None else opened
        lm = LM(
            model,
            vocabulary,
            batch_tokens or BATCH_TOKENS,
            progress,
            ranks or SINGLE_PROCESS,
            source if opened is None else None,
            from_first_model,
        )
        output = run_evaluators(lm, loaded[key])
        result = EvalResult(
            checkpoint=source.name,
            label=label,
            iteration=iteration_of(Path(source.name)),
            metrics=output.metrics,
            curves=output.curves,
            sample_counts={group: n for one in loaded[key] for group, n in one.sample_counts.items()},
            completions=output.completions,
            answers=output.answers,
            changed_answers=output.changed_answers,
            unlogged=output.unlogged,
            texts=_sample_texts(model, source, vocabulary, num_texts),
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        )
        results.append(result)
        if log is not None:
            log.write(result, vocabulary)
        if on_result is not None:
            on_result(result)
    return results


def _sample_texts(
    model: "CausalLM", source: "ModelSource", vocabulary: "Vocabulary", num_texts: int
) -> "list[GeneratedText]":
    if not num_texts:
        return []
    from stochastok_cli.evaluation.generated_texts import sample_documents

    return sample_documents(model, source.folder, vocabulary, num_texts)


def _require_answers(evaluators: Sequence[Evaluator]) -> None:
    """Raises UserError for evaluators whose results have no answers to questions."""
    for evaluator in evaluators:
        if not evaluator.has_answers:
            raise UserError(f"--log-samples: {evaluator.name} asks no questions", fix="drop it")


def _require_pairs(evaluators: Sequence[Evaluator], vocabularies: Sequence["Vocabulary"]) -> None:
    """Raises UserError for results that can't be compared question by question."""
    if len(vocabularies) < 2:
        raise UserError("--paired needs two checkpoints or more")
    for evaluator in evaluators:
        if not evaluator.has_outcomes:
            raise UserError("--paired: this evaluator gives nothing a question to compare", fix="drop --paired")
        names = list({vocabulary.fingerprint: vocabulary.name for vocabulary in vocabularies}.values())
        if not evaluator.same_questions and len(names) > 1:
            raise UserError(
                f"--paired: {evaluator.name} asks models with different tokenizers ({', '.join(names)}) about "
                f"different {evaluator.unit}",
                fix="drop --paired, or give checkpoints of one tokenizer",
            )


def load_evaluators(
    evaluators: Iterable[EvaluatorLike],
    data_dir: Path,
    vocabulary: "Vocabulary",
    context_window: int,
    *,
    progress: ProgressCallback = no_progress,
) -> list[LoadedEvaluator]:
    """Loads, checks and tokenizes everything that the evaluators need, for models of a vocabulary and a window.

    Raises UserError for whatever would go wrong later, so that nothing fails after a model has been loaded.
    """
    chosen = [as_evaluator(entry) for entry in evaluators]
    return [one for evaluator in chosen for one in evaluator.load(vocabulary, context_window, data_dir, progress)]


def run_evaluators(lm: "LM", evaluators: Iterable[LoadedEvaluator]) -> EvaluatorOutput:
    """All metrics, curves and completions of some loaded evaluators for a model, in their order.

    All ranks of `lm.ranks` must call this with the same evaluators; their questions are spread over the ranks.
    """
    return reduce(add, (evaluator.run(lm) for evaluator in evaluators), EvaluatorOutput())


def as_evaluator(entry: EvaluatorLike, for_texts: Mapping[str, Any] = MappingProxyType({})) -> Evaluator:
    """A checked evaluator of an evaluator, a task, or its options with its name under "evaluator".

    Args:
        entry: See `EvaluatorLike`.
        for_texts: Further options of a task; those that are None count as not given.

    >>> as_evaluator("generation:mine=questions.jsonl:dev", {"num_samples": 5}).benchmarks
    ('mine=questions.jsonl:dev',)
    >>> as_evaluator("langgame-val").name, as_evaluator("alignment").name
    ('mcq', 'alignment')
    """
    if isinstance(entry, Evaluator):
        entry.check()
        return entry
    if isinstance(entry, str):
        name, options = _parse_task(entry)
        return make_evaluator(name, {**options, **for_texts})
    if isinstance(entry, EvaluatorConfig):
        return make_evaluator(entry.evaluator, options_of(entry))
    options = dict(entry)
    return make_evaluator(options.pop("evaluator", ""), options)


def _parse_task(text: str) -> tuple[str, dict[str, Any]]:
    """The evaluator of a task and what it scores, as its options."""
    name, colon, after = text.partition(":")
    if name not in EVALUATORS:  # a benchmark, perhaps with a path that has a colon
        known = list(benchmark_specs())
        if "=" in text or text in known or text.endswith(("-train", "-val")):
            return "mcq", {"benchmarks": (text,)}
        raise UserError(
            f"{text!r} is no task{did_you_mean(name, [*EVALUATORS, *known])}",
            fix=f"give a benchmark, or EVALUATOR:BENCHMARK with one of {', '.join(EVALUATORS)}",
        )
    scored = next((option for option in ("benchmarks", "tasks") if option in EVALUATORS[name].options()), None)
    if colon and scored is None:
        raise UserError(f"{text!r}: what {name} scores is always the same", fix=f"give {name!r}")
    return name, {scored: tuple(after.split(","))} if colon and scored else {}


def find_model(name: str, checkpoint_dir: Path, dtype: str) -> "ModelSource":
    """A folder, a run under `checkpoint_dir`, or else the id of a model on the Hub. Raises UserError for none."""
    from stochastok_cli.models.model_sources import locate_model

    return locate_model(name, find_local_checkpoint(name, checkpoint_dir), dtype)


def choose_device(device: str) -> str:
    """The device of "auto", "cpu" or "cuda". Raises UserError if there is no GPU for "cuda"."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: no GPU is available to PyTorch here", fix="give --device auto or cpu")
    return "cuda" if device != "cpu" and torch.cuda.is_available() else "cpu"


def run_labels(checkpoints: Sequence[Path]) -> list[str]:
    """What tables call checkpoints: the name of their run, with the step where several are of one run.

    Where two runs have the same name, it is the path.

    >>> run_labels([Path("runs/a/step_5"), Path("runs/b/step_5"), Path("other")])
    ['a', 'b', 'other']
    >>> run_labels([Path("runs/a/step_5"), Path("runs/a/step_9"), Path("runs/b/step_5")])
    ['a/step_5', 'a/step_9', 'b']
    >>> run_labels([Path("x/a/step_5"), Path("y/a/step_5")])
    ['x/a/step_5', 'y/a/step_5']
    """
    runs = [folder.parent if folder.name.startswith("step_") else folder for folder in checkpoints]
    names = [run.name for run in dict.fromkeys(runs)]
    labels = []
    for run, folder in zip(runs, checkpoints, strict=True):
        of_run = {other for other, its_run in zip(checkpoints, runs, strict=True) if its_run == run}
        name = run.name if len(of_run) == 1 else f"{run.name}/{folder.name}"
        labels.append(name if names.count(run.name) == 1 else str(folder))
    return labels


def _as_list(value: Any) -> list[Any]:
    return list(value) if isinstance(value, Iterable) and not isinstance(value, str | Mapping) else [value]
