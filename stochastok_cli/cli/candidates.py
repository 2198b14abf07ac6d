"""What a shell can complete a word to: datasets, runs, metrics, benchmarks, methods, tokenizers, formats, and keys of
the configuration.

Each function takes the context, with the parameters of the command so far, and the beginning of the word; Typer keeps
the candidates that begin so. Nothing here imports NumPy or torch: an answer comes while somebody types.
"""

import contextlib
import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from typer.models import ParameterInfo

if TYPE_CHECKING:
    from stochastok_cli.config.schema import ConfigKey

MOST_RUNS = 100  # whose metrics are read
LAST_BYTES = 65_536  # of a file of metrics
_TYPES = {"int", "float", "str", "any", "list of str", "list of sections"}
_EXAMPLE_P = "0.1"


def complete_choices(parameter: inspect.Parameter) -> None:
    """Gives an option whose help lists its values, as in `train|val`, these as its candidates."""
    for info in getattr(parameter.annotation, "__metadata__", ()):
        if isinstance(info, ParameterInfo) and "|" in str(info.metavar) and info.autocompletion is None:
            info.autocompletion = listed(str(info.metavar).split("|"))


def listed(values: Sequence[str]) -> Callable[[typer.Context, str], list[str]]:
    def candidates(ctx: typer.Context, incomplete: str) -> list[str]:
        return [*values]

    return candidates


def datasets(ctx: typer.Context, incomplete: str) -> list[str]:
    """The folders of token ids in the data directory."""
    from stochastok_cli.data.folders import memmap_dir

    return _names(memmap_dir(_folder(ctx, "data_dir", "data")))


def corpora(ctx: typer.Context, incomplete: str) -> list[str]:
    """The folders of documents in the data directory, without those of questions, conversations and completions."""
    from stochastok_cli.data.folders import holds_documents, memmap_dir

    folder = memmap_dir(_folder(ctx, "data_dir", "data"))
    return [name for name in _names(folder) if holds_documents(folder / name)]


def runs(ctx: typer.Context, incomplete: str) -> list[str]:
    """The runs in the folder of all runs; for one that is named already, its checkpoints, too."""
    return _runs_in(_folder(ctx, "checkpoint_dir", "checkpoints"), incomplete)


def runs_in_folder(ctx: typer.Context, incomplete: str) -> list[str]:
    """The runs in the folder that `stochastok runs` lists."""
    return _runs_in(_folder(ctx, "folder", "checkpoints"), incomplete)


def metrics(ctx: typer.Context, incomplete: str) -> list[str]:
    """The metrics with a best value that the latest records of runs have."""
    from stochastok_cli.models.checkpoint_reader import run_names
    from stochastok_cli.training.loggers.jsonl import parse_records
    from stochastok_cli.training.run_summary import lower_is_better

    folder = _folder(ctx, "folder", "checkpoints")
    names: set[str] = set()
    for run in [".", *run_names(folder)][:MOST_RUNS]:
        with contextlib.suppress(OSError), open(folder / run / "metrics.jsonl", "rb") as file:
            begins_torn = file.seek(max(os.fstat(file.fileno()).st_size - LAST_BYTES, 0)) > 0
            names.update(*parse_records(file.read().partition(b"\n")[2] if begins_torn else file.read())[0])
    return sorted(name for name in names if lower_is_better(name) is not None)


def tokenizers(ctx: typer.Context, incomplete: str) -> list[str]:
    """The encodings that are known by name, runs where the command knows their folder, and files of tokenizers. Other
    paths are left to the shell, which completes them where nothing else is offered."""
    import tiktoken

    from stochastok_cli.models.checkpoint_reader import run_names
    from stochastok_cli.tokenization import BUNDLED
    from stochastok_cli.tokenization.other_formats import SUFFIXES

    names = [*BUNDLED, *tiktoken.list_encoding_names()]
    if any(parameter.name == "checkpoint_dir" for parameter in ctx.command.params):
        names += run_names(_folder(ctx, "checkpoint_dir", "checkpoints"))
    with contextlib.suppress(OSError):
        names += sorted(entry.name for entry in os.scandir() if entry.name.endswith(SUFFIXES) and entry.is_file())
    return list(dict.fromkeys(names))


def benchmarks(ctx: typer.Context, incomplete: str) -> list[str]:
    """What an evaluator scores, after a comma one more."""
    evaluator = _given(ctx).get("evaluator")
    if str(evaluator) == "bits_per_byte":
        names = corpora(ctx, incomplete)
    else:
        names = _questions(ctx, generated=str(evaluator) == "generation")
    return _one_more(names, incomplete)


def methods(ctx: typer.Context, incomplete: str) -> list[str]:
    """The expansion methods, after a comma one more; all of them stand alone."""
    if "all" in incomplete.split(",")[:-1]:
        return []
    return _one_more([*_methods(), *([] if "," in incomplete else ["all"])], incomplete)


def tokenizations(ctx: typer.Context, incomplete: str) -> list[str]:
    """Methods with `:` for their p, and what has none."""
    named = ["canonical", *(f"{name}:" if takes_p else name for name, takes_p in _methods().items())]
    return _with_example([name for name in named if name.startswith(incomplete)], ":", _EXAMPLE_P) or [
        f"{name}{_EXAMPLE_P}" for name in named if name.endswith(":") and incomplete.startswith(name)
    ]


def formats(ctx: typer.Context, incomplete: str) -> list[str]:
    """The formats of `stochastok export`."""
    from stochastok_cli.data.formats import FORMATS

    return list(FORMATS)


def configurations(ctx: typer.Context, incomplete: str) -> list[str]:
    """The names of configuration files."""
    from stochastok_cli.config import config_names

    return config_names()


def overrides(ctx: typer.Context, incomplete: str) -> list[str]:
    """The keys of the configuration, and after `=` their values."""
    from stochastok_cli.config import config_reference

    keys = {key.path: key for key in config_reference() if "[]" not in key.path}
    name, equals, _ = incomplete.partition("=")
    if not equals:
        matching = [f"{path}=" for path in keys if path.startswith(incomplete)]
        default = keys[matching[0][:-1]].default if len(matching) == 1 else ""
        return _with_example(matching, "=", default)
    return [f"{name}={value}" for value in _values(keys[name], ctx, incomplete)] if name in keys else []


def _values(key: "ConfigKey", ctx: typer.Context, incomplete: str) -> list[str]:
    named: Mapping[str, Callable[[typer.Context, str], list[str]]] = {
        "trainer.dataset.name": datasets,
        "trainer.checkpoint_name": runs,
        "model.checkpoint_name": runs,
    }
    if key.path in named:
        return named[key.path](ctx, incomplete.partition("=")[2])
    if key.path == "trainer.dataset.expand_method":
        return list(_methods())
    if key.type == "bool":
        return ["true", "false"]
    choices = [choice for choice in key.type.split(" | ") if choice not in _TYPES]
    return list(dict.fromkeys([*choices, key.default]))


def _methods() -> dict[str, bool]:
    """Whether each method takes p, by its name, or by its example where it can't be used without arguments."""
    from stochastok_cli.tokenization.methods import METHODS

    return {method.example or method.name: method.takes_p for method in METHODS.values()}


def _with_example(candidates: list[str], end: str, example: str) -> list[str]:
    """The candidates, and where only one is left that awaits more, a value after it: a shell puts no space after what
    is not the only candidate."""
    if len(candidates) == 1 and candidates[0].endswith(end):
        return [candidates[0], f"{candidates[0]}{example or '…'}"]
    return candidates


def _one_more(names: list[str], incomplete: str) -> list[str]:
    """A list with commas, with each name that it does not have yet."""
    before, comma, _ = incomplete.rpartition(",")
    return [f"{before}{comma}{name}" for name in names if name not in before.split(",")]


def _questions(ctx: typer.Context, *, generated: bool) -> list[str]:
    """The benchmarks of multiple choice or of generated answers, also those made under names of their own."""
    from stochastok_cli.data.folders import dataset_dir
    from stochastok_cli.data.recipes.base import RECIPES
    from stochastok_cli.evaluation.benchmarks import benchmark_specs
    from stochastok_cli.evaluation.generation_benchmarks import ADDITION, SPLITS, generation_names
    from stochastok_cli.manifest import read_manifest

    names = generation_names() if generated else [*benchmark_specs()]
    folder = dataset_dir(_folder(ctx, "data_dir", "data"))
    for made in _names(folder):
        with contextlib.suppress(Exception):  # a damaged one is named when it is used
            manifest = read_manifest(folder / made)
            recipe = RECIPES.get(manifest.recipe or "") if manifest else None
            names += [f"{made}-{benchmark.split}" for benchmark in recipe.benchmarks] if recipe else []
            names += [f"{made}-{split}" for split in SPLITS] if generated and recipe is ADDITION else []
    return list(dict.fromkeys(names))


# ------------------------------------------------------------------------------------------------ folders


def _given(ctx: typer.Context) -> dict[str, Any]:
    """The parameters of the command so far. Where the word is the value of an option, the parser stops there, and
    leaves the arguments before it aside."""
    parameters, rest = dict(ctx.params), list(ctx.args)
    for argument in ctx.command.params if rest else ():
        source = ctx.get_parameter_source(str(argument.name))
        if argument.param_type_name == "argument" and rest and (source is None or source.name != "COMMANDLINE"):
            taken = rest if argument.nargs == -1 else rest[:1]
            rest = rest[len(taken) :]
            parameters[str(argument.name)] = taken if argument.nargs == -1 else taken[0]
    return parameters


def _folder(ctx: typer.Context, parameter: str, default: str) -> Path:
    """A folder by the option for it, or in training by an override or the configuration file."""
    parameters = _given(ctx)
    given = parameters.get(parameter)
    if given is not None:
        return Path(os.path.expandvars(os.path.expanduser(given)))  # a shell does that only when the command runs
    for override in reversed(parameters.get("overrides") or []):
        key, equals, value = str(override).partition("=")
        if equals and key == f"general.paths.{parameter}":
            return Path(value)
    return Path(_configured(parameters.get("config"), parameter) or default)


def _configured(config: Any, parameter: str) -> str | None:
    if not config:
        return None
    from stochastok_cli.config import find_config, read_yaml

    with contextlib.suppress(Exception):  # what is wrong with the file is said when it is used
        return str(read_yaml(find_config(str(config)))["general"]["paths"][parameter])
    return None


def _names(folder: Path) -> list[str]:
    """The folders in a folder, without hidden ones."""
    with contextlib.suppress(OSError):
        return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    return []


def _runs_in(folder: Path, incomplete: str) -> list[str]:
    from stochastok_cli.models.checkpoint_reader import STEP, run_names

    names = [*run_names(folder)]
    named = [run for run in names if incomplete == run or incomplete.startswith(f"{run}/")]
    steps = [
        (int(m[1]), f"{run}/{name}") for run in named for name in _names(folder / run) if (m := STEP.fullmatch(name))
    ]
    return [*names, *(checkpoint for _, checkpoint in sorted(steps))]
