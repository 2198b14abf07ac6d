"""The one runner of evaluations: the command line, training and Python use it."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from operator import add
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stochastok_cli.config import EvaluatorConfig
from stochastok_cli.errors import UserError
from stochastok_cli.evaluation.base import EvalResult, Evaluator, EvaluatorOutput, LoadedEvaluator
from stochastok_cli.evaluation.registry import make_evaluator, options_of
from stochastok_cli.models.checkpoint_reader import find_local_checkpoint, iteration_of
from stochastok_cli.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from stochastok_cli.evaluation.sampling import GeneratedText
    from stochastok_cli.evaluation.scoring import LM, Ranks
    from stochastok_cli.models.base import CausalLM
    from stochastok_cli.models.huggingface import ModelSource
    from stochastok_cli.tokenization.vocabulary import Vocabulary

EvaluatorLike = Evaluator | EvaluatorConfig | Mapping[str, Any] | str
"""An evaluator, or its name, or its options with its name under "evaluator" as in `trainer.eval`."""


def evaluate(
    checkpoints: str | Path | Sequence[str | Path],
    evaluators: EvaluatorLike | Sequence[EvaluatorLike],
    *,
    data_dir: str | Path = "data",
    checkpoint_dir: str | Path = "checkpoints",
    device: str = "auto",
    batch_tokens: int | None = None,
    paired: bool = False,
    num_texts: int = 0,
    progress: ProgressCallback = no_progress,
    on_result: Callable[[EvalResult], None] | None = None,
    ranks: "Ranks | None" = None,
) -> list[EvalResult]:
    """Evaluates one or more models.

    Args:
        checkpoints: Paths, or names of runs under `checkpoint_dir`; a run means its latest checkpoint. With the extra
            `hf` also other models: their folders, or ids on the Hub.
        evaluators: Evaluators, or their names, or mappings like the entries of `trainer.eval`:
            `{"evaluator": "mcq", "benchmarks": ["arc"], "num_samples": 100}`, with any option of the evaluator.
        data_dir: The folder of all data.
        checkpoint_dir: The folder of all runs.
        device: "auto" (CUDA where there is a GPU), "cpu" or "cuda".
        batch_tokens: Tokens in a batch, padding included; fewer need less memory.
        paired: The results will be compared question by question: refuse what can't be, before anything is scored.
        num_texts: How many short documents are sampled from each model (`EvalResult.texts`), always with one seed.
        progress: Called with a description, how much is done, and the total.
        on_result: Called with each result as soon as it is there.
        ranks: The processes that share the work, if there are several. All of them call this with equal arguments, and
            get the same results; "cuda" is the GPU that each has chosen as its own.

    Returns:
        One result per checkpoint, in their order.

    Raises:
        UserError: An option, a checkpoint, a benchmark or its data is not usable, for any of the checkpoints.

    Example:
        results = evaluate("my-run", [{"evaluator": "mcq", "benchmarks": ["langgame-val"]}])
        results[0].values["mcq/langgame-val/accuracy"]
    """
    from stochastok_cli.evaluation.scoring import BATCH_TOKENS, LM, SINGLE_PROCESS
    from stochastok_cli.models.huggingface import open_model
    from stochastok_cli.tokenization.loaders import load_vocabulary

    chosen = [as_evaluator(entry) for entry in _as_list(evaluators)]
    torch_device = choose_device(device)
    sources = [find_model(str(name), Path(checkpoint_dir)) for name in _as_list(checkpoints)]
    labels = run_labels([Path(source.name) for source in sources])
    vocabularies = [load_vocabulary(source.folder) for source in sources]
    if paired:
        _require_pairs(chosen, vocabularies)
    for evaluator in chosen:
        evaluator.check_models(vocabularies)
    by_model = any(evaluator.reads_model_files for evaluator in chosen)
    keys = [
        (vocabulary.fingerprint, one.context_window, one.name if by_model else "")
        for vocabulary, one in zip(vocabularies, sources, strict=True)
    ]
    loaded: dict[tuple[str, int, str], list[LoadedEvaluator]] = {}  # tokenized once for equal vocabularies
    for key, vocabulary in zip(keys, vocabularies, strict=True):
        if key not in loaded:
            loaded[key] = load_evaluators(chosen, Path(data_dir), vocabulary, key[1], progress=progress)
    results = []
    for source, label, key, vocabulary in zip(sources, labels, keys, vocabularies, strict=True):
        model = open_model(source, vocabulary, torch_device)
        lm = LM(model, vocabulary, batch_tokens or BATCH_TOKENS, progress, ranks or SINGLE_PROCESS, source)
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
            texts=_sample_texts(model, source, vocabulary, num_texts),
            num_parameters=sum(parameter.numel() for parameter in model.parameters()),
        )
        results.append(result)
        if on_result is not None:
            on_result(result)
    return results


def _sample_texts(
    model: "CausalLM", source: "ModelSource", vocabulary: "Vocabulary", num_texts: int
) -> "list[GeneratedText]":
    if not num_texts:
        return []
    from stochastok_cli.evaluation.sampling import sample_documents

    return sample_documents(model, source.folder, vocabulary, num_texts)


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


def as_evaluator(entry: EvaluatorLike) -> Evaluator:
    """A checked evaluator of an evaluator, its name, or its options with its name under "evaluator"."""
    if isinstance(entry, Evaluator):
        entry.check()
        return dataclasses.replace(entry)  # one that has not seen a model yet
    if isinstance(entry, str):
        return make_evaluator(entry, {})
    if isinstance(entry, EvaluatorConfig):
        return make_evaluator(entry.evaluator, options_of(entry))
    options = dict(entry)
    return make_evaluator(options.pop("evaluator", ""), options)


def find_model(name: str, checkpoint_dir: Path) -> "ModelSource":
    """A folder, a run under `checkpoint_dir`, or else the id of a model on the Hub. Raises UserError for none."""
    from stochastok_cli.models.huggingface import locate_model

    return locate_model(name, find_local_checkpoint(name, checkpoint_dir))


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
    return [value] if isinstance(value, str | Path | Evaluator | EvaluatorConfig | Mapping) else list(value)
