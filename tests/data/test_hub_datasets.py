"""Pulled corpora are what was pushed, or nothing; nothing of a pull that was killed stays behind."""

import io
import itertools
import json
import os
import re
import sys

import hypothesis.strategies as st
import numpy as np
import pyarrow
import pyarrow.parquet
import pytest
from hub_server import USER
from hypothesis import given, settings

from stochastok_cli.data.hub_datasets import pull_corpus, push_corpus
from stochastok_cli.data.resumable_download import PartialDownload
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.errors import FAILED, UserError
from stochastok_cli.manifest import SplitInfo


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    folder = tmp_path_factory.mktemp("corpus")
    (folder / "texts.txt").write_text("\n\n".join(f"text number {i}" for i in range(60)))
    return tokenize(folder / "texts.txt", tokenizer="sample2k", data_dir=folder).path


def contents(folder) -> dict[str, bytes]:
    return {split: (folder / f"{split}.bin").read_bytes() for split in ("train", "val")}


def beside(folder) -> list[str]:
    """What lies beside a folder, locks aside."""
    return sorted(path.name for path in folder.parent.iterdir() if path != folder and path.suffix != ".lock")


def with_other_ids(content: bytes) -> bytes:
    """A valid parquet file whose first two ids are exchanged, as flipped bits could do."""
    table = pyarrow.parquet.read_table(io.BytesIO(content))
    rows = table["ids"].to_pylist()
    rows[0][:2] = rows[0][1::-1]
    sink = pyarrow.BufferOutputStream()
    ids = pyarrow.array(rows, table.schema.field("ids").type)
    pyarrow.parquet.write_table(table.set_column(0, "ids", ids), sink)
    return sink.getvalue().to_pybytes()


def damaged(files: dict[str, bytes], what: str) -> dict[str, bytes]:
    train = next(path for path in files if path.startswith("data/train"))
    manifest = json.loads(files["manifest.json"])
    if what == "ids":
        return {**files, train: with_other_ids(files[train])}
    if what == "checksums":
        for file in manifest["files"].values():
            file["sha256"] = "0" * 64
    elif what == "no checksums":
        manifest["files"]["train.bin"].pop("sha256")
    elif what == "documents":
        manifest["splits"]["train"]["documents"] += 1
    elif what == "tokens":
        manifest["splits"]["val"]["tokens"] = 0
    return {**files, "manifest.json": json.dumps(manifest).encode()}


@pytest.mark.parametrize("what", ["ids", "checksums", "no checksums", "documents", "tokens"])
def test_what_differs_from_the_manifest_of_the_repository_is_discarded(hub_server, tmp_path, corpus, what):
    repo = f"{USER}/differs-{what.replace(' ', '-')}"
    push_corpus(corpus, repo=repo)
    assert contents(pull_corpus("whole", repo=repo, data_dir=tmp_path).path) == contents(corpus)
    stored = hub_server.dataset(repo)
    stored.commit(damaged(stored.files, what))
    with pytest.raises(
        UserError, match=f"^the (train|val) split of {repo} differs from the manifest there; "
    ) as caught:
        pull_corpus("torn", repo=repo, data_dir=tmp_path)
    assert caught.value.exit_code == FAILED
    root = tmp_path / "data_as_memmaps"
    assert {path.name for path in root.iterdir() if path.suffix != ".lock"} == {"whole"}


def test_a_repository_of_a_later_version_is_not_pulled(hub_server, tmp_path, corpus):
    """It is no dataset of others either, to whose rows the end-of-text id is appended."""
    repo = f"{USER}/later"
    push_corpus(corpus, repo=repo)
    stored = hub_server.dataset(repo)
    manifest = json.loads(stored.files["manifest.json"])
    stored.commit({**stored.files, "manifest.json": json.dumps({**manifest, "format": 2}).encode()})
    with pytest.raises(UserError, match="manifest.json of .*/later has the format 2.*; upgrade stochastok") as caught:
        pull_corpus("later", repo=repo, data_dir=tmp_path)
    assert caught.value.exit_code == FAILED
    assert not (tmp_path / "data_as_memmaps" / "later").exists()


def test_a_download_that_differs_from_its_checksum_is_fetched_again(hub_server, tmp_path, corpus):
    """What has arrived before stays, of the damaged file nothing: the next pull goes on."""
    repo = f"{USER}/damaged"
    push_corpus(corpus, repo=repo)
    stored = hub_server.dataset(repo)
    path = next(path for path in stored.files if path.startswith("data/val"))
    content = stored.files[path]
    stored.damaged[path] = content[:10] + bytes([content[10] ^ 1]) + content[11:]
    message = f"^{path} of {repo} is damaged: its checksum is not .*; the same command goes on from there$"
    with pytest.raises(UserError, match=message):
        pull_corpus("again", repo=repo, data_dir=tmp_path)
    partial = tmp_path / "data_as_memmaps" / ".again.pull"
    assert (partial / "train.bin").read_bytes() == contents(corpus)["train"]
    assert [*partial.rglob("*.parquet")] == []
    stored.damaged.clear()
    seen = []
    pulled = pull_corpus("again", repo=repo, data_dir=tmp_path, progress=lambda what, *_: seen.append(what))
    assert contents(pulled.path) == contents(corpus) and set(seen) == {"pull val"}
    assert beside(pulled.path) == []


# ------------------------------------------------------------------------------------------------ leftovers


def test_nothing_of_a_pull_killed_after_its_last_rename_stays(hub_server, tmp_path, corpus, monkeypatch):
    repo = f"{USER}/killed-late"
    push_corpus(corpus, repo=repo)
    pulled = pull_corpus("late", repo=repo, data_dir=tmp_path)
    partial = pulled.path.with_name(".late.pull")

    def leave_as_if_killed() -> None:
        partial.mkdir()
        for split in ("train", "val"):
            os.link(pulled.path / f"{split}.bin", partial / f"{split}.bin")
        source = {**pulled.manifest.options, "tokenizer": pulled.manifest.tokenizer.fingerprint}
        splits = {split: size.to_json() for split, size in pulled.manifest.splits.items()}
        (partial / "progress.json").write_text(json.dumps({"source": source, "splits": splits}))
        pulled.path.with_name(".late.old").mkdir()
        pulled.path.with_name(".late.partial").mkdir()

    leave_as_if_killed()
    hub_server.requests.clear()
    assert not pull_corpus("late", repo=repo, data_dir=tmp_path).created
    assert beside(pulled.path) == [] and hub_server.requests == []

    leave_as_if_killed()
    (partial / "train.bin").unlink()  # whatever it holds, --force takes nothing from a pull that was finished
    (partial / "train.bin").write_bytes(bytes((pulled.path / "train.bin").stat().st_size))
    assert pull_corpus("late", repo=repo, data_dir=tmp_path, force=True).created
    assert contents(pulled.path) == contents(corpus) and beside(pulled.path) == []


def test_leftovers_of_a_recipe_are_removed_too(hub_server, tmp_path):
    from stochastok_cli.data.recipes.base import RECIPES

    recipe = RECIPES["multi_digit_addition"]
    made = recipe.make(data_dir=tmp_path / "here", num_digits=1)
    recipe.push(repo=f"{USER}/sums", data_dir=tmp_path / "here")
    for _ in range(2):
        recipe.pull(repo=f"{USER}/sums", data_dir=tmp_path / "there")
        folder = tmp_path / "there" / recipe.result_folder
        folder.with_name(f".{folder.name}.old").mkdir()
    assert recipe.pull(repo=f"{USER}/sums", data_dir=tmp_path / "there").manifest.files == made.manifest.files
    assert beside(folder) == []


# ------------------------------------------------------------------------------------------------ progress files


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
COUNTS = st.fixed_dictionaries({}, optional={"documents": JSON, "tokens": JSON, "more": JSON}) | JSON
SPLITS_ENTRY = st.dictionaries(st.sampled_from(["train", "val", "../out", ""]), COUNTS, max_size=3) | JSON
PROGRESS = st.fixed_dictionaries({"source": st.just({"repo": "a/b"})}, optional={"splits": SPLITS_ENTRY}) | JSON


@settings(max_examples=60, deadline=None)
@given(content=PROGRESS.map(json.dumps).map(str.encode) | st.binary(max_size=20) | st.just(b"[" * 100_000))
def test_a_damaged_progress_file_starts_the_download_again(tmp_path_factory, content):
    folder = tmp_path_factory.mktemp("progress") / ".x.pull"
    folder.mkdir()
    (folder / "train.bin").write_bytes(b"\1\0\2\0")
    (folder / "progress.json").write_bytes(content)
    download = PartialDownload(folder)
    download.open({"repo": "a/b"}, np.dtype("uint16"), folder.with_name("x"))
    starts = []

    def ids_from(row: int):
        starts.append(row)
        yield np.array([7], np.uint16), 1

    assert download.write("train", ids_from) == SplitInfo(starts[0] + 1, (folder / "train.bin").stat().st_size // 2)
    assert starts == [0] or re.search(rb'"documents": [0-9]', content)


# ------------------------------------------------------------------------------------------------ interrupts


BATCHES = [np.array([1, 2, 3], np.uint16), np.array([4], np.uint16), np.array([5, 6], np.uint16)]
DOCUMENTS = [2, 1, 1]


def batches_from(row: int):
    """The batches from a document on, which must be the first one of a batch."""
    first = np.cumsum([0, *DOCUMENTS]).tolist().index(row)
    yield from zip(BATCHES[first:], DOCUMENTS[first:], strict=True)


def interrupted_download(folder, instruction: int) -> bool:
    """Whether an interrupt comes at this instruction of `PartialDownload.write`, or the download is done before."""
    download = PartialDownload(folder)
    download.open({"repo": "a/b"}, np.dtype("uint16"), folder.with_name("x"))
    left = instruction

    def trace(frame, event, _):
        nonlocal left
        if frame.f_code is not PartialDownload.write.__code__:
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if event == "opcode" and left == 0:
            raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        download.write("train", batches_from)
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


def test_a_download_goes_on_wherever_it_was_interrupted(tmp_path, monkeypatch):
    """What is recorded are whole batches, their documents with their ids."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
    boundaries = [*zip(np.cumsum([0, *DOCUMENTS]), np.cumsum([0, *map(len, BATCHES)]), strict=True)]
    for instruction in itertools.count(1):
        folder = tmp_path / f".{instruction}.pull"
        if not interrupted_download(folder, instruction):
            break
        if (folder / "progress.json").exists():
            recorded = json.loads((folder / "progress.json").read_text())["splits"]["train"]
            assert (recorded["documents"], recorded["tokens"]) in boundaries
        download = PartialDownload(folder)
        download.open({"repo": "a/b"}, np.dtype("uint16"), folder.with_name("x"))
        assert download.write("train", batches_from) == SplitInfo(4, 6)
        assert np.fromfile(folder / "train.bin", np.uint16).tolist() == [1, 2, 3, 4, 5, 6]
    assert instruction > 100
