"""A report on disk: tables as Markdown, CSV and JSON, plots as PNG and SVG, and one HTML page that holds all of it.

results.json   a list of the objects of `stochastok eval --json`; runs.json those of `stochastok runs --json`
results.csv    a line for each checkpoint and metric
report.md      the tables, and links to the plots
report.html    the same in one file that loads nothing else
plots/         each plot as PNG and SVG
manifest.json  these files, so that a later report replaces no others
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from itertools import groupby
from pathlib import Path

from stochastok_cli import __version__
from stochastok_cli.evaluation.comparison import Aggregate, PairedComparison
from stochastok_cli.evaluation.results import EvalResult
from stochastok_cli.report.markdown import to_document
from stochastok_cli.report.page import to_page
from stochastok_cli.report.page_svg import page_svg
from stochastok_cli.report.plots import Plot, plot_style
from stochastok_cli.report.questions import question_examples
from stochastok_cli.report.rendering import to_csv
from stochastok_cli.report.report_folder import PLOTS, create_report_folder
from stochastok_cli.report.result_plots import paired_plots, result_plots
from stochastok_cli.report.run_card import model_tables, run_tables
from stochastok_cli.report.runs import ReportedRun, XAxis, labels_of_curves
from stochastok_cli.report.sections import ChangedExamples, Curves, Document, Drawing, SampledTexts, Section
from stochastok_cli.report.tables import Table, comparison_table, tables_of
from stochastok_cli.report.training_plots import places, training_plots

PAGE = "report.html"
ON_INTERVALS = "Brackets hold 95% intervals over the questions."
ON_QUESTIONS = (
    "✓ and ✗ stand beside each model's answer; where there are options, with the probability of this one among all. A "
    "question is shown as it stands in the benchmark, without the answer, and its number is that of its row there, "
    "from 1, as in files of --log-samples."
)
LONGEST_LABELS = 80
"""The names of the checkpoints stand in the title if they have so many characters together."""
ON_CHANGED = (
    "Questions, drawn at random, that a model answers right in their canonical tokenization and wrong in another one. "
    "The canonical tokens stand above the others; colored are those that the other tokenization does not have."
)
ON_TEXTS = "What each model writes from the beginning of a document: 64 tokens at temperature 1, seed 0."


def write_report(
    folder: Path,
    results: Sequence[EvalResult],
    runs: Sequence[ReportedRun],
    *,
    command: str,
    date: str = "",
    comparisons: Sequence[PairedComparison | Aggregate] = (),
) -> Path:
    """Writes all files of a report on evaluated checkpoints, over an older report.

    Args:
        folder: Where to; it is made if it does not exist.
        results: One for each checkpoint.
        runs: The checkpoints' runs.
        command: The command line that the report names as its origin.
        date: The date that the report names.
        comparisons: Comparisons of the checkpoints, which follow their tables.

    Returns:
        The HTML page.
    """

    def write(folder: Path) -> None:
        _write_report(folder, results, runs, command, date, comparisons)

    create_report_folder(folder, write)
    return folder / PAGE


def _write_report(
    folder: Path,
    results: Sequence[EvalResult],
    runs: Sequence[ReportedRun],
    command: str,
    date: str,
    comparisons: Sequence[PairedComparison | Aggregate],
) -> None:
    plots = _PlotFolder(folder / PLOTS)
    with plot_style():
        paired = [one for one in comparisons if isinstance(one, PairedComparison)]
        aggregates = [one for one in comparisons if isinstance(one, Aggregate)]
        sections = [
            *_table_sections(tables_of(results)),
            Section("Plots", plots.save_all(result_plots(results))),
            Section("Paired", [*plots.save_all(paired_plots(paired)), *map(comparison_table, paired)]),
            *_table_sections(map(comparison_table, aggregates)),
            _questions_section(results),
            _changed_section(results),
            _texts_section(results),
            *_table_sections(model_tables(results)),
            *_run_sections(runs, plots),
        ]
    objects = [one.to_json() for one in (*results, *comparisons)]
    (folder / "results.json").write_text(json.dumps(objects, indent=2, allow_nan=False) + "\n", encoding="utf-8")
    _write(folder / "results.csv", to_csv(results))
    labels = ", ".join(result.label for result in results)
    title = f"Evaluation of {labels}" if len(labels) <= LONGEST_LABELS else "Evaluation"
    _write_document(folder, Document(title, command, _version(date), sections))


def write_runs_report(folder: Path, runs: Sequence[ReportedRun], *, command: str, date: str = "") -> Path:
    """Writes all files of a report on training runs, over an older report; see `write_report`."""

    def write(folder: Path) -> None:
        plots = _PlotFolder(folder / PLOTS)
        with plot_style():
            sections = _run_sections(runs, plots)
        objects = [run.summary.to_json() for run in runs if run.summary is not None]
        (folder / "runs.json").write_text(json.dumps(objects, indent=2, allow_nan=False) + "\n", encoding="utf-8")
        _write_document(folder, Document("Training runs", command, _version(date), sections))

    create_report_folder(folder, write)
    return folder / PAGE


def _version(date: str) -> str:
    return ", ".join(filter(None, (f"stochastok {__version__}", date)))


def _write_document(folder: Path, document: Document) -> None:
    _write(folder / "report.md", to_document(document))
    _write(folder / PAGE, to_page(document))


def _write(file: Path, text: str) -> None:
    """Writes UTF-8. Bytes of paths that are not UTF-8 are escaped, such as those of a checkpoint that was evaluated."""
    file.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")


# ------------------------------------------------------------------------------------------------ sections


def _table_sections(tables: Iterable[Table]) -> list[Section]:
    return [Section(title, list(group)) for title, group in groupby(tables, lambda table: table.section)]


def _questions_section(results: Sequence[EvalResult]) -> Section:
    examples = question_examples(results)
    return Section("Example questions", [ON_QUESTIONS, *examples] if examples else [])


def _changed_section(results: Sequence[EvalResult]) -> Section:
    changed = [ChangedExamples(result.label, one) for result in results for one in result.changed_answers]
    return Section("Answers that another tokenization changes", [ON_CHANGED, *changed] if changed else [])


def _texts_section(results: Sequence[EvalResult]) -> Section:
    texts = [SampledTexts(result.label, result.texts) for result in results if result.texts]
    return Section("Sampled text", [ON_TEXTS, *texts] if texts else [])


def _run_sections(runs: Sequence[ReportedRun], plots: "_PlotFolder") -> list[Section]:
    """Cards, differences and curves of training runs. The files of curves are those over iterations."""
    saved = plots.save_all(training_plots(runs), training_plots(runs, on_page=True))
    over: dict[XAxis, Sequence[Drawing]] = {"iteration": saved}
    x_axes: tuple[XAxis, ...] = ("tokens", "time")
    for x_axis in x_axes:
        drawings = [_drawing(plot) for plot in training_plots(runs, x_axis, on_page=True)]
        if drawings:
            over[x_axis] = drawings
    labels = list(zip(places(runs), labels_of_curves(runs), strict=True))
    curves = [Curves(labels, over)] if saved else []
    return [*_table_sections(run_tables(runs)), Section("Curves", curves)]


# ------------------------------------------------------------------------------------------------ plots


class _PlotFolder:
    """The folder of the plots' files."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.names: set[str] = set()
        folder.mkdir()

    def save_all(self, plots: Iterable[Plot], for_page: Iterable[Plot] | None = None) -> list[Drawing]:
        """Writes both files of each plot. Each has a name of its own, also where capitals make no difference.

        Args:
            plots: The plots.
            for_page: The same ones as the page shows them, where these differ.

        Returns:
            The plots for the page.
        """
        drawings = []
        pairs = ((plot, plot) for plot in plots) if for_page is None else zip(plots, for_page, strict=True)
        for plot, shown in pairs:
            numbered = (plot.name if n == 1 else f"{plot.name}-{n}" for n in itertools.count(1))
            name = next(one for one in numbered if one.lower() not in self.names)
            self.names.add(name.lower())
            plot.figure.savefig(self.folder / f"{name}.png", dpi=160, metadata={"Software": None})
            plot.figure.set_layout_engine("none")  # it is laid out now; once more would take as long as drawing
            plot.figure.savefig(self.folder / f"{name}.svg", metadata={"Date": None})
            drawings.append(_drawing(shown._replace(name=name)))
        return drawings


def _drawing(plot: Plot) -> Drawing:
    return Drawing(plot.name, plot.caption, plot.notes, page_svg(plot.figure))
