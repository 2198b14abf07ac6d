"""Where the folder of a dataset is: by its name in the data directory, or at its path."""

from pathlib import Path

import pytest

from stochastok_cli.data.expand import expand
from stochastok_cli.data.export import export
from stochastok_cli.data.folders import find_dataset, short_dataset_name
from stochastok_cli.data.memmap import Corpus, memmap_dir
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import UserError

NAME = "a-tokenized"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A dataset in the data directory `data` of the working directory, which is the user's home, too."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    Path("text.txt").write_text("\n\n".join(f"Document {i}." for i in range(8)))
    return tokenize("text.txt", name="a", tokenizer="sample2k", val_fraction=0.2).path.resolve()


@pytest.mark.parametrize("way", [NAME, f"data/data_as_memmaps/{NAME}", f"./data/data_as_memmaps/{NAME}/", "ABSOLUTE"])
def test_a_dataset_is_found_by_its_name_and_by_its_path(folder, way):
    named = str(folder.resolve()) if way == "ABSOLUTE" else way
    assert find_dataset(named, "data").samefile(folder)
    assert short_dataset_name(named) == NAME
    expanded = expand(named, p=0.5)
    assert expanded.path.samefile(folder.parent / f"{NAME}-stochastok0.5")
    assert expanded.manifest.made_from.name == NAME
    assert export(named, format="arrow").path == Path("data", "data_as_arrow", NAME)


def test_a_path_that_ends_without_a_name_or_begins_with_a_tilde(folder, monkeypatch):
    assert find_dataset(f"~/data/data_as_memmaps/{NAME}", "other").samefile(folder)
    monkeypatch.chdir(folder)
    for named in (".", f"../../data_as_memmaps/{NAME}/../{NAME}", "../" + NAME):
        assert find_dataset(named, "data").samefile(folder)
        assert (short_dataset_name(named), Corpus(find_dataset(named, "data")).name) == (NAME, NAME)
    monkeypatch.chdir("..")
    assert find_dataset(NAME, "data").samefile(folder)  # a bare name in the working directory


def test_the_data_directory_comes_first(folder):
    Path(NAME).mkdir()
    Path(NAME, "train.bin").touch()
    assert find_dataset(NAME, "data") == memmap_dir(Path("data")) / NAME
    assert find_dataset(f"./{NAME}/.", "data") == memmap_dir(Path("data")) / NAME
    assert find_dataset(Path(NAME), "data") == Path(NAME)


@pytest.mark.parametrize(
    ("way", "message"),
    [
        ("a-tokenised", "there is no dataset 'a-tokenised' in data/data_as_memmaps; did you mean 'a-tokenized'"),
        ("data/data_as_memmaps/a-tokenised", "'a-tokenised' in data/data_as_memmaps; did you mean 'a-tokenized'"),
        ("nowhere/a", "there is no dataset 'a' in nowhere;"),
    ],
)
def test_one_that_is_not_there_is_named(folder, way, message):
    for command in (lambda: expand(way), lambda: export(way, format="arrow")):
        with pytest.raises(UserError, match=message):
            command()
