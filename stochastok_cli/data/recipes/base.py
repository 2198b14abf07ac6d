"""Recipes: datasets that a command of their own makes, pushes to the Hub and pulls from there.

To add one, write a file with a `make` function and a `Recipe`, and add it to the list in `__init__.py` (code outside of
this package calls `register_recipe`):

    def make_spelling(
        tokenizer: Tokenizer = "gpt2",
        data_dir: str | Path = "data",
        *,
        train_size: Annotated[int, Option("Questions to train on.")] = 1_000,
        seed: int = 0,
        force: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> Artifact: ...

    SPELLING = Recipe("spelling", "make-spelling", make_spelling, help="Make …", about="…", layout="…")

`stochastok make-spelling` then has the option `--train-size` and those that all recipes share (`--tokenizer`,
`--data-dir`, `--seed`, `--force`, `--pull`, `--push`, …). This module and the files of recipes are imported when the
command line starts, so they import numpy and datasets only inside functions.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from stochastok_cli.artifacts import Artifact, create_artifact, find_damage, remove_leftovers
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.manifest import MANIFEST, HubSource, Manifest, NewerFormatError, file_checksum, read_manifest
from stochastok_cli.paths import require_path, validate_folder_name
from stochastok_cli.progress import ProgressCallback, no_progress

if TYPE_CHECKING:
    from stochastok_cli.hub import HubFiles, PushResult

MEMMAPS, DATASETS = "data_as_memmaps", "data_as_datasets"

SFT_LAYOUT = (
    "`{train,val}_data.bin` holds rows of equal length (`shapes.json` says how many): the ids of a question, of its "
    "answer, and end-of-text up to the longest row. `{train,val}_idxs_for_masks.bin` holds three uint16 a row: 0, the "
    "end of the question, the end of the answer."
)
"""`Recipe.layout` of questions and answers as rows of ids."""


@dataclass(frozen=True)
class Option:
    """Makes a keyword argument of a recipe's `make` an option of its command: `Annotated[int, Option("…")]`.

    Args:
        help: its help text.
        metavar: the name of its value in the help, where the type is not enough.
    """

    help: str
    metavar: str | None = None


@dataclass(frozen=True)
class RecipeBenchmark:
    """A split of a recipe's questions as `eval --benchmarks <recipe>-<split>` finds it.

    Args:
        split: the split of the saved dataset.
        columns: its columns that are needed; `question` and `options` (the right one first) are among them.
        kind: the kind of question of a row, by which accuracies are reported too; None where there are no kinds.
    """

    split: str
    columns: tuple[str, ...] = ("question", "options")
    kind: Callable[[Mapping[str, Any]], str] | None = None


@dataclass(frozen=True)
class Recipe:
    """A dataset in two forms: texts to evaluate on, in `data_as_datasets`, and ids to train on, in `data_as_memmaps`.

    Args:
        name: the folder of the texts, and the name of the repository that `push` makes, unless another name is given.
        command: the subcommand that makes it.
        make: makes both forms and returns the folder that is finished last. It takes `tokenizer`, `data_dir`, `seed`,
            `force` and `progress`; its other arguments are annotated with `Option`.
        help: the help text of the command.
        about: a description of the dataset, for its card on the Hub.
        layout: how the ids are laid out in the files, for its card on the Hub.
        result: which of the two forms is finished last.
        memmaps: the names of the folders of ids, from the manifest of the texts; by default one folder, `name`.
        notes: lines printed after the dataset is made, from the finished folder; by default none.
        benchmarks: the multiple-choice benchmarks that it provides.
    """

    name: str
    command: str
    make: Callable[..., Artifact]
    help: str
    about: str
    layout: str
    result: Literal["memmap", "dataset"] = "memmap"
    memmaps: Callable[[Manifest], list[str]] | None = None
    notes: Callable[[Artifact], list[str]] = lambda made: []
    benchmarks: tuple[RecipeBenchmark, ...] = ()

    @property
    def texts(self) -> str:
        """The folder of the texts, relative to the data directory."""
        return f"{DATASETS}/{self.name}"

    @property
    def result_folder(self) -> str:
        """The folder that is finished last, relative to the data directory."""
        return self.texts if self.result == "dataset" else f"{MEMMAPS}/{self.name}"

    def folders(self, manifest: Manifest) -> list[str]:
        """All folders relative to the data directory, in the order in which they are finished.

        `manifest` is that of the texts. It may come from the Hub, so names that are not plain folder names are dropped.
        """
        names = self.memmaps(manifest) if self.memmaps else [self.name]
        memmaps = [f"{MEMMAPS}/{name}" for name in names if re.fullmatch(r"\w+", name)]
        return [self.texts, *memmaps] if self.result == "memmap" else [*memmaps, self.texts]

    def renamed(self, folder: str, name: str | None) -> str:
        """A folder of the recipe as it is called in a dataset of another name.

        >>> RECIPES["langgame"].renamed("data_as_datasets/langgame", "easy")
        'data_as_datasets/easy'
        >>> RECIPES["multi_digit_addition"].renamed("data_as_memmaps/multi_digit_addition_base", "short")
        'data_as_memmaps/short_base'
        """
        parent, _, last = folder.rpartition("/")
        if not name or not (last == self.name or last.startswith(f"{self.name}_")):
            return folder
        return f"{parent}/{validate_dataset_name(name, self.name)}{last.removeprefix(self.name)}"

    def push(
        self,
        *,
        name: str | None = None,
        repo: str | None = None,
        username: str | None = None,
        data_dir: str | Path = "data",
        private: bool = False,
        retry_command: str = "",
        progress: ProgressCallback = no_progress,
    ) -> "PushResult":
        """Uploads the finished folders with a card; `datasets.load_dataset` loads the texts.

        In the repository, the folders have the recipe's name.

        Args:
            name: the name of the dataset; by default the recipe's.
            repo: where to; by default `name` at `username` or at the logged-in user.
            username: a user or an organization on the Hub.
            data_dir: the data directory.
            private: make the repository private when it is created.
            retry_command: the command that an error suggests where trying again may help.
            progress: called with the number of uploaded files.

        Returns:
            The address and the commit.

        Raises:
            UserError: the folders are not there, or the Hub refuses.
        """
        from stochastok_cli import hub

        repo = hub.resolve_repo(name or self.name, repo=repo, owner=username, retry_command=retry_command)
        root = require_path(data_dir, "data_dir")
        texts = _require_manifest(root / self.renamed(self.texts, name), self)
        folders = self.folders(texts)
        memmaps = [folder for folder in folders if folder != self.texts]
        card = hub.recipe_card(
            repo,
            dataclasses.replace(_require_manifest(root / self.renamed(memmaps[0], name), self), options=texts.options),
            texts=texts.splits,
            data_files={split: f"{self.texts}/{split}/*.arrow" for split in texts.splits},
            memmaps=memmaps,
            about=self.about,
            layout=self.layout,
            command=f"stochastok {self.command}",
        )
        contents = {folder: root / self.renamed(folder, name) for folder in folders}
        return hub.push_folder(
            repo, contents, card=card, retry_command=retry_command, private=private, progress=progress
        )

    def pull(
        self,
        *,
        name: str | None = None,
        repo: str | None = None,
        username: str | None = None,
        data_dir: str | Path = "data",
        force: bool = False,
        progress: ProgressCallback = no_progress,
    ) -> Artifact:
        """Downloads what `push` uploaded. Each folder is checked against its manifest.

        Args:
            name: the name of the dataset here; by default the recipe's.
            repo: `OWNER/NAME`, perhaps with `@REVISION`; by default `name` at `username`.
            username: a user or an organization on the Hub.
            data_dir: the data directory.
            force: download folders again that are there already, made with the same options.
            progress: called with the number of downloaded files.

        Returns:
            The folder that is finished last.

        Raises:
            UserError: the repository holds something else, or the Hub refuses.
        """
        from stochastok_cli import hub

        if repo is None and username is None:
            raise UserError("--pull needs to know where from", fix="give --repo OWNER/NAME or --hf-username")
        repo, revision = hub.parse_repo_id(repo or f"{username}/{name or self.name}")
        root = require_path(data_dir, "data_dir")
        result = root / self.renamed(self.result_folder, name)
        existing = None if force else read_manifest(result)
        before = existing.pulled_from if existing else None
        same = before is not None and (before.repo, before.requested) == (repo, revision)
        if existing and same and not find_damage(result, existing.files):
            remove_leftovers(result)
            return Artifact(result, existing, created=False)  # without a request to the Hub
        files = hub.list_files(repo, revision)
        source = HubSource(repo, revision, files.revision)
        made = None
        for folder in self.folders(_manifest_on_hub(files, self.texts)):
            here = self.renamed(folder, name)
            recipe = self.name if folder == self.texts and here != folder else None
            made = _pull_folder(files, folder, root / here, source, recipe, force, progress)
        assert made is not None
        return made


def _require_manifest(folder: Path, recipe: Recipe) -> Manifest:
    manifest = read_manifest(folder)
    if manifest is None:
        raise UserError(f"there is no {folder} with a manifest", fix=f"run stochastok {recipe.command} first")
    return manifest


def _manifest_on_hub(files: "HubFiles", folder: str) -> Manifest:
    tree = files.json(f"{folder}/{MANIFEST}") if f"{folder}/{MANIFEST}" in files.paths else None
    try:
        manifest = Manifest.from_json(tree or {}, f"{folder}/{MANIFEST} of {files.repo}")
    except NewerFormatError:
        raise
    except UserError:
        manifest = Manifest()
    if not manifest.files:
        raise UserError(
            f"{files.repo} on the Hub holds no {folder} with a manifest",
            fix="--pull takes what the same command has pushed with --push",
        )
    return manifest


def _pull_folder(
    files: "HubFiles",
    folder: str,
    final: Path,
    source: HubSource,
    recipe: str | None,
    force: bool,
    progress: ProgressCallback,
) -> Artifact:
    manifest = _manifest_on_hub(files, folder)

    def build(temporary: Path) -> Manifest:
        files.fetch(folder, list(manifest.files), temporary, progress)
        for name, file in manifest.files.items():
            if file_checksum(temporary / name) != file:
                raise UserError(f"{folder}/{name} of {files.repo} differs from its manifest", exit_code=FAILED)
        return dataclasses.replace(manifest, pulled_from=source, recipe=recipe)

    return create_artifact(final, manifest.options, build, force=force)


def validate_dataset_name(name: str, recipe: str) -> str:
    """Returns the name of a dataset of a recipe. Raises UserError for that of another recipe, or of no folder."""
    if name in RECIPES and name != recipe:
        raise UserError(
            f"{name!r} is the name of what {RECIPES[name].command} makes", fix="give another one with --name"
        )
    return validate_folder_name(name)


def describe_questions(made: Artifact, *, remedy: str = "") -> list[str]:
    """`Recipe.notes` of questions and answers as rows of ids: how many validation questions are in training, too, the
    length of the longest row, and the first question.

    `remedy` says what keeps the questions of validation out of training.
    """
    from stochastok_cli.data.sft_dataset import SFTDataset

    dataset = SFTDataset(made.path)
    rows, offsets = dataset.rows("train"), dataset.offsets("train")
    first = dataset.vocabulary.decode(rows[0][: offsets[0, 2]].tolist())
    notes = [f"the longest row has {rows.shape[1]} ids", f"for example: {first}"]
    repeated = made.manifest.val_in_train
    if repeated is not None:
        count = dataset.num_rows["val"]
        text = f"{repeated:,} of {count:,} validation questions are also in training"
        notes.insert(0, f"{text}; {remedy}" if repeated and remedy else text)
    return notes


RECIPES: dict[str, Recipe] = {}
"""The recipes by name, in the order in which `stochastok --help` lists their commands."""


def register_recipe(recipe: Recipe) -> Recipe:
    """Adds a recipe to RECIPES and returns it. Raises ValueError for a name or command that is taken."""
    if any(recipe.name == other.name or recipe.command == other.command for other in RECIPES.values()):
        raise ValueError(f"there is a recipe {recipe.name!r} already, or one with the command {recipe.command!r}")
    RECIPES[recipe.name] = recipe
    return recipe
