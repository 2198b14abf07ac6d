"""LangGame and addition to and from the Hub: their folders lie there as they do under the data directory."""

import dataclasses
import re
from dataclasses import dataclass
from pathlib import Path

from stochastok_cli import hub
from stochastok_cli.artifacts import (
    MANIFEST,
    Artifact,
    HubSource,
    Manifest,
    SplitInfo,
    create_artifact,
    file_checksum,
    find_damage,
    read_manifest,
)
from stochastok_cli.data.memmap import dataset_dir, memmap_dir
from stochastok_cli.data.recipes import addition, langgame
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.progress import ProgressCallback, no_progress

_MEMMAPS, _QUESTIONS = memmap_dir(Path()).name, dataset_dir(Path()).name


@dataclass(frozen=True)
class Shared:
    """What is pushed and pulled together: a saved `datasets.DatasetDict` to evaluate on and memmaps to train on.

    Folders are named by their paths under the data directory.
    """

    name: str
    command: str  # that makes, pushes and pulls it
    last: str  # the folder that is finished last
    about: str
    layout: str  # of the memmaps, for those who read them by themselves

    @property
    def questions(self) -> str:
        return f"{_QUESTIONS}/{self.name}"

    def folders(self, forms: list[str]) -> list[str]:
        """All, in the order in which they are finished; `forms` are addition's, of which each has a memmap folder."""
        all_of_it = [self.questions, *([f"{_MEMMAPS}/{self.name}_{form}" for form in forms] or [self.last])]
        return sorted(all_of_it, key=lambda folder: folder == self.last)


LANGGAME = Shared(
    langgame.NAME,
    "stochastok make-langgame",
    f"{_MEMMAPS}/{langgame.NAME}",
    "LangGame: multiple-choice questions about the letters of words, from *StochasTok: Improving Fine-Grained "
    "Subword Understanding in LLMs* ([arXiv 2506.01687](https://arxiv.org/abs/2506.01687)). A row has a `question` "
    "and `options`, the right one first.",
    "`{train,val}_data.bin` holds rows of equal length (`shapes.json` says how many): the ids of a question, of its "
    "answer, and end-of-text up to the longest row. `{train,val}_idxs_for_masks.bin` holds three uint16 a row: 0, the "
    "end of the question, the end of the answer.",
)
ADDITION = Shared(
    addition.NAME,
    "stochastok make-addition",
    f"{_QUESTIONS}/{addition.NAME}",
    "All sums of two numbers, in several tokenizations, from *StochasTok: Improving Fine-Grained Subword "
    "Understanding in LLMs* ([arXiv 2506.01687](https://arxiv.org/abs/2506.01687)). A row has a `question` and an "
    "`answer`, whose digits are reversed, and the token ids of both in each tokenization X: `t_question_X` and "
    "`t_answer_X`.",
    "`{train,val}.bin` holds the ids of all questions and answers end to end; the next `$` ends an answer.",
)


def push_shared(
    what: Shared,
    data_dir: Path,
    *,
    repo: str | None,
    username: str | None,
    private: bool,
    retry_command: str,
    progress: ProgressCallback = no_progress,
) -> hub.PushResult:
    """Uploads LANGGAME or ADDITION, finished in `data_dir`, with a card; `datasets.load_dataset` loads its questions.

    The repository is `repo`, else the dataset's name at `username` or the logged-in user. `again` is the command to
    name if the upload fails.
    """
    repo = hub.resolve_repo(what.name, repo=repo, owner=username, retry_command=retry_command)
    questions = read_manifest(data_dir / what.questions) or Manifest()
    places = what.folders(_forms(questions))
    memmaps = [place for place in places if place != what.questions]
    ids = read_manifest(data_dir / memmaps[0]) or Manifest()
    training = f"{', '.join(f'`{place}`' for place in memmaps)}: {what.layout} Ids are {ids.dtype}."
    card = hub.dataset_card(
        repo,
        dataclasses.replace(ids, options=questions.options),
        about=what.about,
        use=_use(repo, what, questions.splits, training),
        data_files={split: f"{what.questions}/{split}/*.arrow" for split in questions.splits},
    )
    contents = {place: data_dir / place for place in places}
    return hub.push_folder(repo, contents, card=card, retry_command=retry_command, private=private, progress=progress)


def pull_shared(
    what: Shared, repo: str, data_dir: Path, *, force: bool = False, progress: ProgressCallback = no_progress
) -> Artifact:
    """Fetches what `push_shared` pushed to `repo` (perhaps with `@REVISION`) into `data_dir`.

    Each folder is checked against its manifest and left alone if it is there already, made with the same options.
    Raises UserError for a repository that holds something else, and for what the Hub refuses.
    """
    repo, asked = hub.parse_repo_id(repo)
    there = None if force else read_manifest(data_dir / what.last)
    before = there and there.pulled_from and (there.pulled_from.repo, there.pulled_from.requested)
    if there and before == (repo, asked) and not find_damage(data_dir / what.last, there.files):
        return Artifact(data_dir / what.last, there, created=False)  # without a request to the Hub
    files = hub.list_files(repo, asked)
    pulled_from = HubSource(repo, asked, files.revision)
    places = what.folders(_forms(_manifest(files, what.questions)))
    made = [_pull(files, place, data_dir, pulled_from, force, progress) for place in places]
    return made[-1]


def _forms(manifest: Manifest) -> list[str]:
    """Addition's forms, of which each is a folder. A stranger's manifest may say anything."""
    return [form for form in manifest.options.get("forms", []) if re.fullmatch(r"\w+", str(form))]


def _manifest(files: hub.HubFiles, place: str) -> Manifest:
    tree = files.json(f"{place}/{MANIFEST}") if f"{place}/{MANIFEST}" in files.paths else None
    try:
        manifest = Manifest.from_json(tree or {})
    except (TypeError, ValueError, AttributeError):
        manifest = Manifest()
    if not manifest.files:
        raise UserError(
            f"{files.repo} on the Hub holds no {place} with a manifest",
            fix="--pull takes what the same command has pushed with --push",
        )
    return manifest


def _pull(
    files: hub.HubFiles,
    place: str,
    data_dir: Path,
    pulled_from: HubSource,
    force: bool,
    progress: ProgressCallback,
) -> Artifact:
    manifest = _manifest(files, place)

    def build(folder: Path) -> Manifest:
        files.fetch(place, list(manifest.files), folder, progress)
        for name, entry in manifest.files.items():
            if file_checksum(folder / name) != entry:
                raise UserError(f"{place}/{name} of {files.repo} differs from its manifest", exit_code=FAILED)
        return dataclasses.replace(manifest, pulled_from=pulled_from)

    return create_artifact(data_dir / place, manifest.options, build, force=force)


def _use(repo: str, what: Shared, questions: dict[str, SplitInfo], training: str) -> str:
    counts = ", ".join(f"{entry.documents:,} of {split}" for split, entry in questions.items())
    return f"""\
```python
from datasets import load_dataset

print(load_dataset({repo!r})["val"][0])
```

These are the questions to evaluate on: {counts}.

To train on all with `stochastok`:

```
{what.command} --pull --repo {repo}
```

The files lie here as they do in its data directory, so that this does the same:

```
hf download {repo} --repo-type dataset --local-dir data
```

{training}"""
