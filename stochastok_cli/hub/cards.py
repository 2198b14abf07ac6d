"""The cards (README.md) of repositories on the Hub: what the data or the model is, its source, and how to load it.

Pure functions from a manifest to text. The front matter maps splits to files for `datasets.load_dataset`. The text lies
between two marks; a later push replaces what is between them and leaves the rest of the card to its owner.
"""

import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from stochastok_cli.errors import count_of
from stochastok_cli.manifest import Manifest, SplitInfo

NAME = "README.md"
BEGIN = "<!-- stochastok: each push replaces what follows, down to the end mark; text outside of the marks is kept -->"
END = "<!-- stochastok: end -->"
SOURCE_LICENSE = "licence of the source"
CONFIG = "default"  # the configuration of `datasets` that the files of a push make up
_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def corpus_card(repo: str, manifest: Manifest, license: str | None = None) -> str:
    """The card of a tokenized or expanded corpus with the columns `ids` and `len`.

    `license` is that of the source, as an identifier of the Hub (`cc0-1.0`); None where it is not known.
    """
    assert manifest.tokenizer is not None
    options, tokenizer = manifest.options, manifest.tokenizer.name
    source = manifest.made_from.name if manifest.made_from else "a text"
    if "method" in options:
        about = (
            f"The documents of `{source}` as token ids of the `{tokenizer}` vocabulary, expanded with "
            f"`{options['method']}`, p = {options.get('p')}, seed {options.get('seed')}: some tokens are replaced by "
            "others that decode to the same text (StochasTok, [arXiv 2506.01687](https://arxiv.org/abs/2506.01687))."
        )
        command = [
            "stochastok",
            "expand",
            str(source),
            "-p",
            str(options.get("p")),
            "--method",
            str(options["method"]),
            "--pull",
            "--repo",
            repo,
        ]
    else:
        about = f"The documents of `{source}`, tokenized with the `{tokenizer}` vocabulary."
        command = ["stochastok", "tokenize", repo, "--pull"]
    data_files = {split: f"data/{split}-*" for split, size in manifest.splits.items() if size.documents}
    use = f"""\
A row is a document: `ids` are its token ids, with the end-of-text id {manifest.end_of_text} at the end, and `len` is
their number.

```python
from datasets import load_dataset
from stochastok_cli import load_vocabulary

row = load_dataset({repo!r})["{_shown_split(data_files)}"][0]
print(load_vocabulary({tokenizer!r}).decode(row["ids"]))
```

For training with `stochastok`, as flat files of ids:

```
{shlex.join(command)}
```"""
    return dataset_card(repo, manifest, about=about, use=use, data_files=data_files, license=license)


def dataset_card(
    repo: str,
    manifest: Manifest,
    *,
    about: str,
    use: str,
    data_files: Mapping[str, str],
    license: str | None = None,
) -> str:
    """The card of a dataset with a manifest.

    Args:
        repo: the repository.
        manifest: the manifest of the dataset.
        about: a description of the dataset.
        use: a description of how to load it.
        data_files: the pattern of the files of each split, for `datasets.load_dataset`.
        license: the license of the source, as an identifier of the Hub; None where it is not known.

    Returns:
        The Markdown text, with its front matter.
    """
    rows = sum(split.documents for split in manifest.splits.values())
    front = {
        "license": license,
        "tags": ["stochastok", manifest.kind],
        "size_categories": [next((name for size, name in _SIZES if rows < size), "n>10M")],
        "configs": [
            {
                "config_name": CONFIG,
                "data_files": [{"split": split, "path": path} for split, path in data_files.items()],
            }
        ],
    }
    tokenizer, source = manifest.tokenizer, manifest.made_from
    named = {
        "source": source and f"{source.name} ({source.fingerprint})",
        SOURCE_LICENSE: source and (license or "not known here: see the source"),
        "tokenizer": tokenizer and f"{tokenizer.name} ({tokenizer.size:,} ids, {tokenizer.fingerprint})",
    }
    options = {key: value for key, value in manifest.options.items() if not isinstance(value, dict | list)}
    made_by = manifest.made_by
    facts = {
        **named,
        **{key: value for key, value in options.items() if key not in named},
        **{name: _size(split) for name, split in manifest.splits.items()},
        **({"made by": f"`{made_by.command}` (version {made_by.version})"} if made_by else {}),
    }
    return _card(repo, front, [about, _table(facts), f"## Use\n\n{use}"])


def recipe_card(
    repo: str,
    manifest: Manifest,
    *,
    texts: Mapping[str, SplitInfo],
    data_files: Mapping[str, str],
    memmaps: Sequence[str],
    about: str,
    layout: str,
    command: str,
) -> str:
    """The card of a dataset made by a recipe: texts to evaluate on, and files of ids to train on.

    Args:
        repo: the repository.
        manifest: the manifest of the ids.
        texts: the sizes of the splits of the texts.
        data_files: the pattern of the files of each split of the texts.
        memmaps: the folders of ids, as paths in the repository.
        about: what the dataset is.
        layout: how the ids are laid out in the files.
        command: the command that makes and pulls the dataset.

    Returns:
        The Markdown text, with its front matter.
    """
    counts = ", ".join(f"{size.documents:,} of {split}" for split, size in texts.items())
    use = f"""\
```python
from datasets import load_dataset

print(load_dataset({repo!r})["{_shown_split(data_files)}"][0])
```

These are the questions to evaluate on: {counts}.

To train on all with `stochastok`:

```
{command} --pull --repo {repo}
```

The files here have the paths that they have in its data directory, so this has the same effect:

```
hf download {repo} --repo-type dataset --local-dir data
```

{", ".join(f"`{folder}`" for folder in memmaps)}: {layout} Ids are {manifest.dtype}."""
    return dataset_card(repo, manifest, about=about, use=use, data_files=data_files)


def model_card(
    repo: str,
    *,
    config_yaml: str,
    metrics: Mapping[str, float],
    command: str,
    made_from: str | None = None,
    model_type: str | None = None,
    base_model: str | None = None,
) -> str:
    """The card of a trained model, or of a trained adapter of one.

    Args:
        repo: the repository.
        config_yaml: the configuration of the run.
        metrics: the last metrics of the run.
        command: the command that trained it.
        made_from: the dataset that it was trained on.
        model_type: the architecture, as `config.json` names it ("llama", "gpt2").
        base_model: for an adapter (LoRA), the model that it belongs to.

    Returns:
        The Markdown text, with its front matter.
    """
    front = {
        "library_name": "transformers",
        "pipeline_tag": "text-generation",
        "tags": ["stochastok"],
    }
    use = f"""\
```python
from transformers import AutoModelForCausalLM, AutoTokenizer

model = AutoModelForCausalLM.from_pretrained({repo!r})
tokenizer = AutoTokenizer.from_pretrained({repo!r})
```"""
    model = f"A {f'`{model_type}` ' if model_type else ''}language model"
    if base_model:
        model = f"An adapter (LoRA) of `{base_model}`"
    sections = [
        f"{model} trained with `stochastok`{f' on `{made_from}`' if made_from else ''}.",
        f"## Use\n\n{use}",
        f"## Metrics\n\n{_table({name: f'{value:.6g}' for name, value in metrics.items()})}" if metrics else "",
        f"## How it was made\n\n```\n{command}\n```\n\n```yaml\n{config_yaml.strip()}\n```",
    ]
    return _card(repo, front, sections)


def _shown_split(data_files: Mapping[str, str]) -> str:
    """The split whose first row a card shows how to load: the validation split, or the first where there is none."""
    return "val" if "val" in data_files else next(iter(data_files), "train")


def _size(split: SplitInfo) -> str:
    return count_of(split.documents, "document") + (
        "" if split.tokens is None else f", {count_of(split.tokens, 'token')}"
    )


def _table(facts: Mapping[str, Any]) -> str:
    rows = [f"| {name} | {_cell(value)} |" for name, value in facts.items() if value is not None]
    return "\n".join(["| | |", "|---|---|", *rows])


def _cell(value: Any) -> str:
    text = value if isinstance(value, str) else json.dumps(value)
    return " ".join(text.replace("|", "\\|").split())


def _card(repo: str, front: dict[str, Any], sections: list[str]) -> str:
    known = {key: value for key, value in front.items() if value is not None}
    title = f"# {repo.rpartition('/')[2]}"
    text = "\n\n".join([title, BEGIN, *filter(None, sections), END])
    return f"---\n{yaml.safe_dump(known, sort_keys=False)}---\n\n{text}\n"
