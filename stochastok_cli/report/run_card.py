"""The run card: a table with a column for each run, and one of the settings in which the runs differ."""

import json
import time
from collections.abc import Iterator, Sequence
from typing import Any

from stochastok_cli.config import Config
from stochastok_cli.data.folders import find_dataset, short_dataset_name
from stochastok_cli.errors import count_of
from stochastok_cli.evaluation.results import EvalResult
from stochastok_cli.report.runs import ReportedRun, has_different_datasets
from stochastok_cli.report.tables import MISSING, Cell, Column, Table
from stochastok_cli.training.events import format_duration
from stochastok_cli.training.run_data import manifest_or_none
from stochastok_cli.training.run_summary import RunSummary
from stochastok_cli.training.same_run import differing_values
from stochastok_cli.training.schedules import learning_rate

COLUMNS = 4
"""How many runs stand side by side in one table."""
BEST = "validation/bits_per_byte"
ROWS = (
    "state",
    "data",
    "fingerprint of the data",
    "size of the data",
    "data made from",
    "tokenizer",
    "method and p",
    "started from",
    "model",
    "trained parameters",
    "context window",
    "seed",
    "iterations",
    "batch",
    "tokens seen",
    "learning rate",
    "best validation",
    "training time",
    "device",
    "versions",
    "started",
    "continued at iteration",
    "last change",
)
"""The rows of a card, in their order."""


def run_tables(runs: Sequence[ReportedRun]) -> list[Table]:
    """The overview of several runs, the cards of all runs, and the settings in which they differ."""
    return [*_overview(runs), *_cards(runs), *_differences(runs)]


def model_tables(results: Sequence[EvalResult]) -> Iterator[Table]:
    """What was evaluated: the size of each model, and where it is."""
    for part in _parts([(result.label, result) for result in results]):
        rows = [
            ("parameters", [result.num_parameters for _, result in part]),
            ("iteration", [result.iteration for _, result in part]),
            ("checkpoint", [result.checkpoint for _, result in part]),
        ]
        cells = [[Cell(name), *map(Cell, map(_text, values))] for name, values in rows]
        yield Table("Models", "", _columns("", part), cells, is_text=True)


def _text(value: int | str | None) -> str:
    return MISSING if value is None else value if isinstance(value, str) else f"{value:,}"


def _overview(runs: Sequence[ReportedRun]) -> Iterator[Table]:
    """One line for each run, where there are several."""
    summaries = [(run.label, run.summary) for run in runs if run.summary is not None]
    if len(summaries) < 2:
        return
    headings = (
        "run",
        "dataset",
        "method and p",
        "iteration",
        "train loss",
        "validation loss",
        "bits per byte",
        "best",
        "state",
    )
    rows = []
    for label, summary in summaries:
        best = summary.best.get(BEST)
        latest = (summary.metrics.get(name) for name in ("train/loss", "validation/loss", BEST))
        cells = [
            label,
            summary.dataset or MISSING,
            _expansion(summary),
            summary.shown_iterations,
            *(MISSING if value is None else f"{value:.4f}" for value in latest),
            MISSING if best is None else f"{best.value:.4f}",
            summary.shown_state,
        ]
        rows.append([Cell(cell) for cell in cells])
    notes = ["Losses are the latest ones, in nats per token; bits per byte are of validation, latest and best."]
    if has_different_datasets(runs):
        notes.append(
            "The runs have different datasets: bits per byte compare those of the same text, losses of the same tokens."
        )
    of_text = ("dataset", "method and p", "state")
    columns = [Column(heading, wrap=not i, is_name=heading in of_text) for i, heading in enumerate(headings)]
    yield Table("Overview", "", columns, rows, notes)


def _cards(runs: Sequence[ReportedRun]) -> Iterator[Table]:
    """The cards of all runs. A row that no run has is left out; what can't be read is said below."""
    cards = [(run.label, _card(run, run.summary)) for run in runs if run.summary is not None]
    names = [name for name in ROWS if any(name in card for _, card in cards)]
    notes = [problem for run in runs if run.summary is not None for problem in run.summary.problems]
    if unrecorded := [run.label for run in runs if run.summary is not None and not run.starts]:
        which = ", ".join(unrecorded) if len(unrecorded) < len(cards) else "these runs"
        notes.append(f"Not recorded by {which}: devices, versions, parameters and when they were started.")
    for part in (parts := list(_parts(cards))):
        rows = [[Cell(name), *(Cell(card.get(name, MISSING)) for _, card in part)] for name in names]
        section = "Run card" if len(cards) == 1 else "Run cards"
        last = notes if part is parts[-1] else []
        yield Table(section, "", _columns("", part), rows, last, is_text=True)


def _differences(runs: Sequence[ReportedRun]) -> Iterator[Table]:
    """The keys in which the configurations differ, as `stochastok runs --compare` shows them for two."""
    configs = [
        (run.label, run.summary.config.to_dict())
        for run in runs
        if run.summary is not None and run.summary.config is not None
    ]
    if len(configs) < 2:
        return
    first = configs[0][1]
    differences = [differing_values(first, config) for _, config in configs]
    names = list(dict.fromkeys(name for of_run in differences for name in of_run))
    if not names:
        yield Table("What differs", "", [Column("key")], [], ["The configurations are equal."], is_text=True)
        return
    for part in _parts(list(zip([label for label, _ in configs], differences, strict=True))):
        rows = []
        for name in names:
            of_first = next(of_run[name][0] for of_run in differences if name in of_run)
            values = [of_run[name][1] if name in of_run else of_first for _, of_run in part]
            rows.append([Cell(name), *(Cell(setting_text(value)) for value in values)])
        yield Table("What differs", "", _columns("key", part), rows, [], is_text=True)


def _parts(entries: Sequence[tuple[str, Any]]) -> Iterator[Sequence[tuple[str, Any]]]:
    for start in range(0, len(entries), COLUMNS):
        yield entries[start : start + COLUMNS]


def _columns(heading: str, entries: Sequence[tuple[str, Any]]) -> list[Column]:
    return [Column(heading), *(Column(label, wrap=True) for label, _ in entries)]


def _card(run: ReportedRun, summary: RunSummary) -> dict[str, str]:
    """What is known of a run, by the names of the rows."""
    config = summary.config
    card = {"state": summary.shown_state, **(_data_facts(summary, config) if config else {})}
    card |= _model_facts(summary, config)
    if config is not None:
        card |= _training_facts(run, summary, config)
    if run.starts:
        start, latest = run.starts[0], run.starts[-1]
        card["trained parameters"] = f"{latest.trained_parameters:,}"
        card["device"] = "; ".join(dict.fromkeys(_device(one.device, one.ranks, one.kernels) for one in run.starts))
        versions = dict.fromkeys(f"stochastok {one.version}, PyTorch {one.torch}" for one in run.starts)
        card["versions"] = "; ".join(versions)
        card["started"] = _date(start.time)
        if len(run.starts) > 1:
            continued = ", ".join(f"{one.iteration:,} ({_date(one.time)})" for one in run.starts[1:])
            card["continued at iteration"] = continued
    card["last change"] = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(summary.changed))
    if (seconds := run.x_values("time")) is not None:
        card["training time"] = f"{format_duration(seconds[-1])}, without evaluating and saving"
    if (best := summary.best.get(BEST)) is not None:
        card["best validation"] = f"{best.value:.4f} bits per byte at iteration {best.iteration:,}"
    assert card.keys() <= set(ROWS)
    return card


def _data_facts(summary: RunSummary, config: Config) -> dict[str, str]:
    facts = {"data": short_dataset_name(config.trainer.dataset.name)}
    fingerprint = None if summary.data is None else summary.data["fingerprint"]
    if fingerprint is not None:
        facts["fingerprint of the data"] = fingerprint
    folder = find_dataset(config.trainer.dataset.name, config.general.paths.data_dir)
    manifest = manifest_or_none(folder)
    if manifest is not None and fingerprint in (None, manifest.fingerprint):  # else it was made again since
        train = manifest.splits.get("train")
        if train is not None and train.tokens is not None:
            facts["size of the data"] = f"{count_of(train.tokens, 'token')} in {count_of(train.documents, 'document')}"
        if manifest.tokenizer is not None:
            facts["tokenizer"] = f"{manifest.tokenizer.name}, {manifest.tokenizer.size:,} entries"
        if manifest.made_from is not None:
            facts["data made from"] = manifest.made_from.name
    facts["method and p"] = _expansion(summary)
    return facts


def _model_facts(summary: RunSummary, config: Config | None) -> dict[str, str]:
    """The sizes of the model, by the configuration of the checkpoint that `transformers` opens."""
    facts = {}
    if config is not None and config.checkpoint_name is not None:
        facts["started from"] = config.checkpoint_name
    try:
        tree = json.loads((summary.checkpoint / "config.json").read_bytes()) if summary.checkpoint else {}
    except (OSError, ValueError):
        tree = {}
    sizes = [
        f"{value:,} {unit}"
        for key, unit in (("num_hidden_layers", "layers"), ("hidden_size", "wide"), ("num_attention_heads", "heads"))
        if isinstance(value := tree.get(key) if isinstance(tree, dict) else None, int)
    ]
    if sizes:
        architectures = tree.get("architectures")
        name = architectures[0] if isinstance(architectures, list) and architectures else "model"
        facts["model"] = f"{name}: {', '.join(sizes)}"
    return facts


def _training_facts(run: ReportedRun, summary: RunSummary, config: Config) -> dict[str, str]:
    training, tokens = config.trainer.training, run.tokens_per_iteration
    assert tokens is not None
    windows = training.batch_size * training.gradient_accumulation_steps
    return {
        "context window": f"{config.model.context_window:,} tokens",
        "seed": str(config.general.seed),
        "iterations": summary.shown_iterations,
        "batch": f"{windows:,} windows, {tokens:,} tokens",
        "tokens seen": f"{summary.iteration * tokens:,}",
        "learning rate": _learning_rate(config, summary.iteration) + _rate_of_muon(config),
    }


def _learning_rate(config: Config, done: int) -> str:
    """The highest learning rate and that of the last iteration, which may be far from where the schedule leads.

    Args:
        config: The configuration of the run.
        done: How many iterations are done.
    """
    training, optimizer = config.trainer.training, config.trainer.optimizer
    warm_up = f"{training.warmup_iters:,} of warm-up"
    if done <= training.warmup_iters > 0:
        return f"rising to {optimizer.lr:g}, {done:,} of {warm_up}"
    if not optimizer.decay_lr:
        return f"{optimizer.lr:g}, constant, {warm_up}"
    last = f"{learning_rate(max(done - 1, 0), optimizer, training):.3g}"
    way = optimizer.schedule if float(last) == optimizer.min_lr else f"{optimizer.schedule} toward {optimizer.min_lr:g}"
    return f"{optimizer.lr:g} to {last}, {way}, {warm_up}"


def _rate_of_muon(config: Config) -> str:
    """What stands behind the learning rate, which is AdamW's; empty without Muon."""
    optimizer = config.trainer.optimizer
    return f"; Muon's {optimizer.muon_lr / optimizer.lr:.3g} times that" if optimizer.name == "muon" else ""


def _expansion(summary: RunSummary) -> str:
    """Method and p; MISSING where they are not known."""
    if summary.method is None:
        return "none" if summary.is_expansion_known else MISSING
    if summary.p is None:
        return summary.method
    schedule = f" to 0, {summary.p_schedule}" if summary.p_schedule else ""
    return f"{summary.method}, p = {summary.p:g}{schedule}"


def _device(name: str, ranks: int, kernels: str) -> str:
    return f"{f'{ranks} × ' if ranks > 1 else ''}{name}, {kernels} kernels"


def _date(text: str) -> str:
    """A recorded time for people.

    >>> _date("2026-11-27T08:22:01Z")
    '2026-11-27 08:22 UTC'
    """
    return f"{text[:10]} {text[11:16]} UTC"


def setting_text(value: Any) -> str:
    """A value as in a YAML file, in one line.

    >>> setting_text(0.5), setting_text(None), setting_text([{"evaluator": "mcq"}])
    ('0.5', 'null', '[{evaluator: mcq}]')
    """
    import yaml

    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6, sort_keys=False)
    return text.removesuffix("...\n").strip()
