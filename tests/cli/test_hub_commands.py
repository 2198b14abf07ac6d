"""`--pull` and `--push` on the command line, against a server of our own that speaks the Hub's protocol."""

import json
import os
import subprocess
import sys
import time
from itertools import chain
from pathlib import Path
from typing import NamedTuple

import huggingface_hub
import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import yaml
from hub_server import TOKEN, USER
from preloaded_python import run_stochastok

from stochastok_cli.cli import app
from stochastok_cli.data import hub_datasets
from stochastok_cli.data.tokenize import tokenize
from stochastok_cli.evaluation.benchmarks import load_benchmark
from stochastok_cli.manifest import SplitInfo
from stochastok_cli.tokenization.loaders import load_vocabulary

TOKENS = {"ids": [[464, 3290, 50256], [1212, 318, 50256], [40, 50256]], "len": [3, 3, 2]}


def run(*args, code=0, **environment):
    """Runs the application in a process of its own."""
    done = run_stochastok(*args, **environment)
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


class CommandResult(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs the application in this process, as a user would; retries wait for a moment only."""
    sleep = time.sleep
    monkeypatch.setattr(time, "sleep", lambda seconds: sleep(min(seconds, 0.001)))

    def run_here(*arguments, code=0) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["stochastok", *map(str, arguments)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main()
        result = CommandResult(ended.value.code, *capfd.readouterr())
        assert result.code == code, result.err
        assert TOKEN not in result.out + result.err
        return result

    return run_here


def bytes_of(folder) -> dict[str, bytes]:
    """Every file below a folder but manifests, which tell of the command, and locks."""
    files = (f for f in folder.rglob("*") if f.is_file() and f.name != "manifest.json" and f.suffix != ".lock")
    return {str(file.relative_to(folder)): file.read_bytes() for file in files}


def parquet(columns) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def flat(path, split):
    return np.fromfile(path / f"{split}.bin", np.uint16).tolist()


def test_push_then_pull_on_a_clean_machine(hub_server, command, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    corpus = tmp_path / "tiny.txt"
    corpus.write_text("\n\n".join(f"document number {i} of this corpus" for i in range(40)))
    command("tokenize", corpus, "--data-dir", here, "--push", "--hf-username", "someone")
    pushed = command("expand", "tiny-tokenized", "-p", "0.5", "--data-dir", here, "--push", "--hf-username", "someone")
    assert "pushed to" in pushed.err
    pulls = [("tokenize", "someone/tiny"), ("expand", "tiny-tokenized", "-p", "0.5")]
    for source, name in zip(pulls, ("tiny-tokenized", "tiny-tokenized-stochastok0.5"), strict=True):
        pull = [*source, "--pull", "--repo", f"someone/{name}", "--data-dir", there]
        path = there / "data_as_memmaps" / name
        assert command(*pull).out == f"{path}\n"
        assert memmaps(path) == memmaps(here / "data_as_memmaps" / name)
        num_requests = len(hub_server.requests)
        assert "left alone" in command(*pull).err
        assert len(hub_server.requests) == num_requests


def test_pull_the_references_kind_of_dataset(hub_server, command, tmp_path):
    """No manifest: gpt2; SOURCE itself is not tokenized, so the published name is taken."""
    hub_server.add_dataset("Skylion007/openwebtext", {"train.parquet": parquet({"text": ["a", "b"]})})
    files = {f"data/{s}-00000.parquet": parquet(TOKENS) for s in ("train", "val")}
    hub_server.add_dataset("anyasims/openwebtext-tokenized", files)
    done = command("tokenize", "Skylion007/openwebtext", "--pull", "--data-dir", tmp_path)
    path = tmp_path / "data_as_memmaps" / "openwebtext-tokenized"
    assert done.out == f"{path}\n"
    assert flat(path, "train") == flat(path, "val") == list(chain(*TOKENS["ids"]))
    assert load_vocabulary("gpt2").decode(flat(path, "val")[:2]) == "The dog"


@pytest.mark.parametrize("source", ["Skylion007/openwebtext", "gone/openwebtext"])
def test_a_source_that_can_not_be_read_is_no_end_of_the_search(hub_server, command, tmp_path, source):
    """Of the first nothing is left but a script."""
    hub_server.add_dataset("Skylion007/openwebtext", {"openwebtext.py": b"", "README.md": b""})
    files = {f"data/{s}-00000.parquet": parquet(TOKENS) for s in ("train", "val")}
    hub_server.add_dataset("me/openwebtext-tokenized", files)
    pull = "tokenize", source, "--pull", "--hf-username", "me", "--data-dir", tmp_path
    assert flat(Path(command(*pull).out.strip()), "val") == list(chain(*TOKENS["ids"]))
    del hub_server.repos["datasets/me/openwebtext-tokenized"]
    failed = command(*pull, "--force", code=2)
    assert source in failed.err and "no repository me/openwebtext-tokenized" in failed.err
    assert failed.err.count("\n") == 1


def test_what_was_pulled_is_looked_at_before_it_is_left_alone(hub_server, command, tmp_path):
    hub_server.add_dataset("x/whole", {f"data/{s}-0.parquet": parquet(TOKENS) for s in ("train", "val")})
    pull = "tokenize", "x/whole", "--pull", "--data-dir", tmp_path
    path = Path(command(*pull).out.strip())
    whole = memmaps(path)
    (path / "train.bin").write_bytes(b"1234")
    assert "left alone" not in command(*pull).err
    assert memmaps(path) == whole
    assert "was made with the tokenizer 'gpt2'" in command(*pull, "--tokenizer", "sample2k", code=2).err
    assert "can't be the name of a folder" in command(*pull, "--name", "../../out", code=2).err


def test_a_subset_is_pulled(hub_server, command, tmp_path):
    card = (
        "---\nconfigs:\n"
        + "".join(
            f"- config_name: {name}\n  data_files:\n"
            + "".join(f"  - split: {split}\n    path: {name}/{split}.parquet\n" for split in ("train", "val"))
            for name in ("one", "two")
        )
        + "---\n"
    )
    rows = {"one": {"ids": [[1, 50256]]}, "two": {"ids": [[2, 50256]]}}
    files = {f"{name}/{s}.parquet": parquet(rows[name]) for name in rows for s in ("train", "val")}
    hub_server.add_dataset("x/multi", {"README.md": card.encode(), **files})
    for subset, first in (("two", 2), ("one", 1)):
        pull = "tokenize", "x/multi", "--subset", subset, "--pull", "--data-dir", tmp_path / subset
        assert flat(Path(command(*pull).out.strip()), "train") == [first, 50256]
        assert "left alone" in command(*pull).err


def test_rows_without_an_end_get_one(hub_server, command, tmp_path):
    rows = {"ids": [[464], [], [1212, 50256]]}
    hub_server.add_dataset("x/ends", {f"data/{s}-0.parquet": parquet(rows) for s in ("train", "validation")})
    command("tokenize", "x/ends", "--pull", "--data-dir", tmp_path)
    assert flat(tmp_path / "data_as_memmaps" / "ends-tokenized", "train") == [464, 50256, 50256, 1212, 50256]


@pytest.mark.parametrize(
    ("rows", "args", "message", "code"),
    [
        ({"ids": [[1, 60000]]}, [], "the id 60000", 2),
        ({"ids": [[3000]]}, ["--tokenizer", "sample2k"], "the id 3000", 2),
        ({"tokens": [[1]]}, ["--repo", "x/bad"], "no column 'ids'", 2),
        ({"ids": ["text"]}, ["--repo", "x/bad"], "not lists of token ids", 2),
        (None, ["--repo", "x/absent"], "x/absent", 2),
        (None, ["--repo", "x/bad@nothing"], "nothing", 2),
    ],
)
def test_a_bad_pull_is_one_line_and_leaves_nothing(hub_server, command, tmp_path, rows, args, message, code):
    rows = rows or TOKENS
    hub_server.add_dataset("x/bad", {f"data/{s}-0.parquet": parquet(rows) for s in ("train", "val")})
    failed = command("tokenize", "x/bad", "--pull", "--data-dir", tmp_path, *args, code=code)
    assert message in failed.err
    assert failed.err.count("\n") == 1
    root = tmp_path / "data_as_memmaps"
    assert not root.exists() or [f for f in root.iterdir() if not f.name.endswith(".lock")] == []


def memmaps(path) -> dict[str, bytes]:
    return {split: (path / f"{split}.bin").read_bytes() for split in ("train", "val")}


def long_corpus() -> dict[str, bytes]:
    """A dataset of 1,200 rows in groups of 100, and what its memmaps are."""
    rows = [[i % 50000, 7 * i % 50000, 50256][i % 2 :] for i in range(1200)]
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table({"ids": rows}), sink, row_group_size=100)
    flat_ids = np.array([*chain(*rows)], np.uint16).tobytes()
    files = {f"data/{s}-0.parquet": sink.getvalue().to_pybytes() for s in ("train", "val")}
    return {**files, "train": flat_ids, "val": flat_ids}


def test_a_killed_pull_goes_on_where_it_was(hub_server, command, tmp_path):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    for name in ("x/whole", "x/killed"):
        hub_server.add_dataset(name, files)
    command("tokenize", "x/whole", "--pull", "--data-dir", tmp_path)
    root = tmp_path / "data_as_memmaps"
    assert memmaps(root / "whole-tokenized") == expected
    pull = ["tokenize", "x/killed", "--pull", "--data-dir", str(tmp_path)]
    held = hub_server.fail(
        "GET", "killed.*val.*parquet", hold=True, after=len(hub_server.requests_like("GET.*val")) - 1
    )
    killed = subprocess.Popen([sys.executable, "-m", "stochastok_cli", *pull], stderr=subprocess.DEVNULL)
    assert held.requested.wait(30)
    killed.kill()
    killed.wait()
    held.released.set()
    arrived = root / ".killed-tokenized.pull"
    assert (arrived / "train.bin").read_bytes() == expected["train"]
    assert not (root / "killed-tokenized").exists()
    command(*pull)
    assert memmaps(root / "killed-tokenized") == expected
    assert not arrived.exists()


@pytest.mark.slow
def test_a_pull_killed_within_a_split_loses_its_last_seconds_only(hub_server, tmp_path):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    hub_server.add_dataset("x/within", files)
    code = f"""
import os, pathlib, signal
from stochastok_cli.data import hub_datasets
from stochastok_cli.data import resumable_download
resumable_download.SAVE_SECONDS = 0
def progress(what, done, total):
    if what == "pull train" and done >= 700:
        os.kill(os.getpid(), signal.SIGKILL)
hub_datasets.pull_corpus("within", repo="x/within", data_dir={str(tmp_path)!r}, progress=progress)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    arrived = tmp_path / "data_as_memmaps" / ".within.pull"
    with open(arrived / "train.bin", "ab") as torn:
        torn.write(b"half a token")
    seen = []
    made = hub_datasets.pull_corpus(
        "within", repo="x/within", data_dir=tmp_path, progress=lambda *state: seen.append(state)
    )
    assert seen[0][0] == "pull train" and seen[0][1] > 700
    assert memmaps(made.path) == expected
    assert made.manifest.splits == {s: SplitInfo(1200, 3000) for s in ("train", "val")}


def test_what_arrived_of_another_revision_is_not_mixed_in(hub_server, tmp_path, monkeypatch):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    repo = hub_server.add_dataset("x/moved", {f"data/{s}-0.parquet": parquet(TOKENS) for s in ("train", "val")})

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        hub_datasets.pull_corpus("moved", repo="x/moved", data_dir=tmp_path, progress=interrupt)
    assert (tmp_path / "data_as_memmaps" / ".moved.pull" / "train.bin").stat().st_size
    repo.commit(files)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    made = hub_datasets.pull_corpus("moved", repo="x/moved", data_dir=tmp_path)
    assert memmaps(made.path) == expected
    assert made.manifest.options["revision"] == repo.head


def test_offline_and_refused(hub_server, tmp_path):
    corpus = tmp_path / "c.txt"
    corpus.write_text("one\n\ntwo\n\nthree")
    run("tokenize", corpus, "--data-dir", tmp_path, HF_HUB_OFFLINE="1")
    done = run("tokenize", "x/y", "--pull", "--data-dir", tmp_path, HF_HUB_OFFLINE="1", code=1)
    assert done.stderr.startswith("error: ")
    done = run("tokenize", corpus, "--data-dir", tmp_path, "--push", "--repo", "someone/c", HF_TOKEN="hf_wrong", code=1)
    assert "stochastok" in done.stderr or "tokenize" in done.stderr  # how to try again
    assert (tmp_path / "data_as_memmaps" / "c-tokenized" / "manifest.json").exists()
    assert "hf_wrong" not in done.stderr + done.stdout


def test_text_from_the_hub(hub_server, command, tmp_path):
    texts = [f"text number {i}" for i in range(300)]
    hub_server.add_dataset("anyone/texts", {"data/train-0.parquet": parquet({"text": texts})})
    done = command("tokenize", "anyone/texts", "--data-dir", tmp_path)
    path = tmp_path / "data_as_memmaps" / "texts-tokenized"
    assert done.out == f"{path}\n"
    decoded = load_vocabulary("gpt2").decode(flat(path, "train") + flat(path, "val"))
    assert sorted(decoded.split("<|endoftext|>")[:-1]) == sorted(texts)


LANGGAME = ("make-langgame", "--train-size", 300, "--val-size", 20, "--tokenizer", "sample2k")
ADDITION = ("make-addition", "--num-digits", 1)


@pytest.mark.parametrize(("make", "name"), [(LANGGAME, "langgame"), (ADDITION, "multi_digit_addition")])
def test_made_datasets_are_pushed_and_pulled(hub_server, command, tmp_path, make, name):
    import datasets

    here, there, by_hand = tmp_path / "here", tmp_path / "there", tmp_path / "by hand"
    made = command(*make, "--data-dir", here, "--push", "--private")
    repo = f"{USER}/{name}"
    assert made.out == f"{here / RESULT_FOLDERS[name]}\n"
    assert f"pushed to {hub_server.url}/datasets/{repo}" in made.err
    assert hub_server.dataset(repo).private

    first = datasets.load_dataset(repo)
    assert first["val"].to_dict() == datasets.load_from_disk(here / "data_as_datasets" / name)["val"].to_dict()
    assert set(first) == {"train", "val"}
    card = hub_server.dataset(repo).files["README.md"].decode()
    assert f"stochastok {make[0]} --pull --repo {repo}" in card
    assert f"questions to evaluate on: {len(first['train'])} of train, {len(first['val'])} of val" in card

    pulled = command(make[0], "--pull", "--repo", repo, "--data-dir", there)
    assert pulled.out == f"{there / RESULT_FOLDERS[name]}\n"
    assert bytes_of(there) == bytes_of(here)
    assert "left alone" in command(*make, "--data-dir", there).err  # made with the same options
    huggingface_hub.snapshot_download(repo, repo_type="dataset", local_dir=by_hand, allow_patterns="data_as_*")
    assert {k: v for k, v in bytes_of(by_hand).items() if ".cache" not in k} == bytes_of(here)

    num_requests = len(hub_server.requests)
    assert "left alone" in command(make[0], "--pull", "--hf-username", USER, "--data-dir", there).err
    assert len(hub_server.requests) == num_requests
    again = command(make[0], "--pull", "--repo", f"{repo}@{hub_server.dataset(repo).head}", "--data-dir", tmp_path)
    manifest = json.loads((tmp_path / RESULT_FOLDERS[name] / "manifest.json").read_text())
    assert again.out == f"{tmp_path / RESULT_FOLDERS[name]}\n"
    assert manifest["pulled_from"]["revision"] == manifest["pulled_from"]["asked"] == hub_server.dataset(repo).head


RESULT_FOLDERS = {
    "langgame": "data_as_memmaps/langgame",
    "multi_digit_addition": "data_as_datasets/multi_digit_addition",
}


def test_a_dataset_of_another_name_is_pushed_and_pulled_under_any(hub_server, command, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    command(*LANGGAME, "--name", "easy", "--data-dir", here, "--push")
    assert "data_as_datasets/langgame/manifest.json" in hub_server.dataset(f"{USER}/easy").files
    for name in ("easy", "langgame"):
        pull = ["make-langgame", "--pull", "--repo", f"{USER}/easy", "--name", name, "--data-dir", there]
        assert command(*pull).out == f"{there / 'data_as_memmaps' / name}\n"
        assert "left alone" in command(*pull).err
        assert len(load_benchmark(f"{name}-val", there).questions) > 0
    for form in ("data_as_datasets", "data_as_memmaps"):
        assert bytes_of(there / form / "easy") == bytes_of(there / form / "langgame") == bytes_of(here / form / "easy")
    assert "is the name of what make-cute makes" in command(*pull, "--name", "cute", code=2).err


def test_addition_of_another_name_is_pushed_and_pulled_under_any(hub_server, command, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    command("make-addition", "--num-digits", 1, "--name", "sums", "--data-dir", here, "--push")
    assert "data_as_memmaps/multi_digit_addition_base/train.bin" in hub_server.dataset(f"{USER}/sums").files
    pull = ["make-addition", "--pull", "--repo", f"{USER}/sums", "--name", "other", "--data-dir", there]
    assert command(*pull).out == f"{there / 'data_as_datasets' / 'other'}\n"
    for folder in ("data_as_datasets/{}", "data_as_memmaps/{}_base", "data_as_memmaps/{}_character"):
        assert bytes_of(there / folder.format("other")) == bytes_of(here / folder.format("sums"))


def test_a_smaller_game_pushed_later_leaves_nothing_of_the_larger(hub_server, command, tmp_path):
    command(*LANGGAME, "--data-dir", tmp_path, "--push", "--repo", f"{USER}/games")
    repo = hub_server.dataset(f"{USER}/games")
    repo.commit(
        {**repo.files, "data_as_datasets/langgame/train/data-00001-of-00002.arrow": b"old", "notes.md": b"mine"}
    )
    command(*LANGGAME, "--data-dir", tmp_path, "--push", "--repo", f"{USER}/games")
    assert "notes.md" in repo.files
    assert not [path for path in repo.files if "00001-of" in path]


def test_what_differs_from_its_manifest_is_refused(hub_server, command, tmp_path):
    command(*LANGGAME, "--data-dir", tmp_path / "here", "--push", "--repo", f"{USER}/torn")
    repo = hub_server.dataset(f"{USER}/torn")
    damaged = "data_as_memmaps/langgame/val_data.bin"
    repo.commit({**repo.files, damaged: bytes(len(repo.files[damaged]))})
    failed = command("make-langgame", "--pull", "--repo", f"{USER}/torn", "--data-dir", tmp_path, code=1)
    assert failed.err == f"error: {damaged} of {USER}/torn differs from its manifest\n"
    assert not (tmp_path / "data_as_memmaps" / "langgame").exists()
    repo.commit({path: data for path, data in repo.files.items() if path != damaged})
    failed = command("make-langgame", "--pull", "--repo", f"{USER}/torn", "--data-dir", tmp_path, code=1)
    assert failed.err == f"error: {USER}/torn on the Hub lacks {damaged}\n"


def test_makers_say_what_they_can_not_pull(hub_server, command, tmp_path):
    hub_server.add_dataset("x/other", {"train.jsonl": b'{"text": "a"}'})
    pull = ["make-addition", "--pull", "--data-dir", tmp_path]
    assert "give --repo OWNER/NAME or --hf-username" in command(*pull, code=2).err
    holds = "error: x/other on the Hub holds no data_as_datasets/multi_digit_addition with a manifest; "
    assert command(*pull, "--repo", "x/other", code=2).err.startswith(holds)
    assert "no repository x/absent is found" in command(*pull, "--repo", "x/absent", code=2).err
    assert not [*tmp_path.iterdir()]


# ------------------------------------------------------------------------------------------------ corpora


@pytest.fixture
def corpus(tmp_path):
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(f"text number {i}" for i in range(60)))
    return file


def test_an_empty_split_goes_there_and_back(hub_server, command, tmp_path, corpus):
    import datasets

    tokenize = ["tokenize", corpus, "--val-fraction", 0, "--data-dir", tmp_path / "here"]
    command(*tokenize, "--push", "--repo", f"{USER}/no-val")
    assert set(datasets.load_dataset(f"{USER}/no-val")) == {"train"}
    command("tokenize", f"{USER}/no-val", "--pull", "--name", "texts", "--data-dir", tmp_path / "there")
    here, there = (tmp_path / side / "data_as_memmaps" / "texts-tokenized" for side in ("here", "there"))
    assert memmaps(here) == memmaps(there)
    assert memmaps(there)["val"] == b""
    assert json.loads((there / "manifest.json").read_text())["splits"]["val"] == {"documents": 0, "tokens": 0}


def test_a_pinned_revision_is_pulled_and_recorded(hub_server, command, tmp_path, corpus):
    push = ["--push", "--repo", f"{USER}/pinned"]
    command("tokenize", corpus, "--data-dir", tmp_path / "a", *push)
    first = hub_server.dataset(f"{USER}/pinned").head
    command("tokenize", corpus, "--tokenizer", "sample2k", "--data-dir", tmp_path / "b", *push)
    assert hub_server.dataset(f"{USER}/pinned").head != first
    pull = ["tokenize", "texts", "--pull", "--data-dir", tmp_path / "c", "--repo"]
    command(*pull, f"{USER}/pinned@{first[:10]}")
    pulled = tmp_path / "c" / "data_as_memmaps" / "texts-tokenized"
    assert memmaps(pulled) == memmaps(tmp_path / "a" / "data_as_memmaps" / "texts-tokenized")
    options = json.loads((pulled / "manifest.json").read_text())["options"]
    assert (options["repo"], options["asked"], options["revision"]) == (f"{USER}/pinned", first[:10], first)
    assert "made with other options: asked" in command(*pull, f"{USER}/pinned", code=2).err
    command(*pull, f"{USER}/pinned", "--force")
    assert memmaps(pulled) == memmaps(tmp_path / "b" / "data_as_memmaps" / "texts-tokenized")


FAULTS = [{"status": 504, "times": 2}, {"status": 429, "Retry-After": "2"}, {"cut": True}]


@pytest.mark.parametrize("fault", FAULTS, ids=str)
@pytest.mark.parametrize("request_", ["PUT /storage", "POST /commit", "GET parquet", "GET /revision/"])
def test_an_overloaded_hub_or_a_cut_connection_is_outlived(hub_server, command, tmp_path, corpus, request_, fault):
    method, path = request_.split()
    repo = f"{USER}/outlived-{path.strip('/')}-{FAULTS.index(fault)}"
    hub_server.fail(method, path, **fault)
    command("tokenize", corpus, "--data-dir", tmp_path / "here", "--push", "--repo", repo)
    command("tokenize", "texts", "--pull", "--repo", repo, "--data-dir", tmp_path / "there")
    assert hub_server.faults[0].times == 0
    here, there = (tmp_path / side / "data_as_memmaps" / "texts-tokenized" for side in ("here", "there"))
    assert memmaps(here) == memmaps(there)


def test_an_outage_ends_in_one_line_and_the_next_pull_goes_on(hub_server, command, tmp_path):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    hub_server.add_dataset("x/outage", files)
    hub_server.fail("GET", "val.*parquet", 503, times=1000, after=1)
    pull = ["tokenize", "x/outage", "--pull", "--data-dir", tmp_path]
    message = "error: the Hub keeps answering 503 about x/outage: it is overloaded or limits requests; "
    assert command(*pull, code=1).err == f"{message}the same command goes on from there\n"
    hub_server.faults.clear()
    hub_server.requests.clear()
    command(*pull)
    assert memmaps(tmp_path / "data_as_memmaps" / "outage-tokenized") == expected


TEXT = ["tokenize", "sample", "--tokenizer", "sample2k"]


@pytest.mark.parametrize(
    ("token", "message"), [("hf_wrong", "the Hub refuses the token"), (None, "no Hub token is set")], ids=str
)
@pytest.mark.parametrize("make", [TEXT, LANGGAME, ADDITION, [*TEXT, "--hf-username", USER]], ids=str)
def test_without_a_good_token_the_result_is_kept(hub_server, command, tmp_path, monkeypatch, make, token, message):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    made = command(*make, "--data-dir", tmp_path, "--push", code=1)
    assert made.out == ""
    last = made.err.splitlines()[-1]
    assert last.startswith(f"error: the push failed: {message}; set HF_TOKEN or run `hf auth login`")
    assert f"; to try again: stochastok {make[0]} " in last and last.endswith(f"--data-dir {tmp_path} --push")
    assert "hf_wrong" not in made.err
    assert hub_server.repos == {}
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert "left alone" in command(*make, "--data-dir", tmp_path, "--push").err
    assert len(hub_server.repos) == 1


@pytest.mark.parametrize(
    ("repo", "token", "code", "message"),
    [
        ("other/secret", TOKEN, 2, "it does not exist, or it is private and this token does not open it"),
        ("other/secret", None, 2, "it does not exist, or it is private and no token is set"),
        ("x/absent", TOKEN, 2, "no repository x/absent is found on the Hub"),
        ("x/absent", None, 2, "no repository x/absent is found on the Hub"),
        ("other/secret", "hf_wrong", 1, "the Hub refuses the token; set HF_TOKEN or run `hf auth login` with a valid"),
        ("other/gated", TOKEN, 1, "access to other/gated must be asked for"),
        (f"{USER}/secret@0123456789", TOKEN, 2, "has no revision '0123456789'"),
        ("no name", TOKEN, 2, "'no name' is not a name of a repository on the Hub"),
    ],
)
@pytest.mark.parametrize(
    "pull", [["tokenize", "texts"], ["expand", "texts-tokenized"], ["make-langgame"]], ids=lambda pull: pull[0]
)
def test_what_can_not_be_pulled_is_one_line(
    hub_server, command, tmp_path, monkeypatch, pull, repo, token, code, message
):
    monkeypatch.delenv("HF_TOKEN")
    if token:
        monkeypatch.setenv("HF_TOKEN", token)
    files = {f"data/{s}-0.parquet": parquet(TOKENS) for s in ("train", "val")}
    files["data_as_datasets/langgame/manifest.json"] = b"{}"
    for name, flags in (("other/secret", {"private": True}), (f"{USER}/secret", {}), ("other/gated", {"gated": True})):
        hub_server.add_dataset(name, files, **flags)
    failed = command(*pull, "--pull", "--repo", repo, "--data-dir", tmp_path, code=code)
    assert failed.err.startswith("error: ") and failed.err.count("\n") == 1
    assert message in failed.err
    assert not [*tmp_path.iterdir()]


def test_a_public_repository_takes_nothing_private(hub_server, command, tmp_path):
    hub_server.add_dataset(f"{USER}/sample-tokenized", {})
    refused = command(*TEXT, "--data-dir", tmp_path, "--push", "--private", code=2)
    assert f"{USER}/sample-tokenized exists on the Hub and is public" in refused.err


# ------------------------------------------------------------------------------------------------ offline


@pytest.fixture
def offline(monkeypatch):
    """What HF_HUB_OFFLINE=1 does; the libraries have read the environment already."""
    import datasets.config
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)


def test_what_needs_no_network_works_offline(hub_server, command, offline, tmp_path, tiny):
    for make in (TEXT, ["expand", "sample-tokenized"], ["expand", "--text", "words"], LANGGAME, ADDITION):
        command(*make, *([] if "--text" in make else ["--data-dir", tmp_path]))
    run_name = ["--run-name", "offline"]
    command("train", "--config", tiny / "tiny.yaml", *run_name)
    evaluate = ["eval", tiny / "runs" / "offline", "--data-dir", tmp_path, "--evaluator"]
    command(*evaluate, "mcq", "--benchmarks", "langgame-val", "--num-samples", 5)
    command(*evaluate, "bits_per_byte", "--benchmarks", "sample-tokenized")
    assert hub_server.requests == []


@pytest.mark.parametrize(
    ("arguments", "repo"),
    [
        (["tokenize", "x/texts"], "x/texts"),
        (["tokenize", "x/texts", "--pull"], "x/texts"),
        (["expand", "texts-tokenized", "--pull"], "anyasims/texts-tokenized-stochastok0.1"),
        (["make-langgame", "--pull", "--hf-username", "x"], "x/langgame"),
        ([*TEXT, "--push", "--hf-username", "x"], "x/sample-tokenized"),
        ([*TEXT, "--push"], "the account of the token"),
    ],
    ids=str,
)
def test_what_needs_one_says_so_in_one_line(hub_server, command, offline, tmp_path, arguments, repo):
    failed = command(*arguments, "--data-dir", tmp_path, code=1)
    line = failed.err.splitlines()[-1]
    assert f"the Hub can't be asked about {repo}: offline mode is on; unset HF_HUB_OFFLINE" in line
    assert line.startswith("error: ")
    assert len(failed.err.splitlines()) == (2 if "--push" in arguments else 1)
    assert ("to try again: stochastok tokenize" in line) == ("--push" in arguments)


ROWS = ["--prompt-column", "p", "--completion-column", "c"]
MISTYPED = [
    (["tokenize", "corpuss/text"], "file or folder corpuss/text; did you mean 'corpus/text'?"),
    (["tokenize", "nothing/alike"], "file or folder nothing/alike."),
    (["tokenize", "corpuss/chats", *ROWS], "file or folder corpuss/chats; did you mean 'corpus/cha"),
    (["tokenize", "sample", "--tokenizer", "corpuss/text"], "tokenizer corpuss/text; did you mean 'corpus/text'?"),
    (["eval", "corpuss/text", "--evaluator", "alignment"], "checkpoint corpuss/text; did you mean 'corpus/text'?"),
    (["generate", "corpuss/text", "x"], "checkpoint corpuss/text; did you mean 'corpus/text'?"),
    (
        ["train", "--config-name", "speedrun", "trainer.checkpoint_name=corpuss/text"],
        "checkpoint corpuss/text; did you",
    ),
]


@pytest.mark.parametrize(("arguments", "message"), MISTYPED, ids=str)
def test_a_mistyped_path_is_told_first(hub_server, command, tmp_path, monkeypatch, arguments, message):
    (tmp_path / "corpus" / "text").mkdir(parents=True)
    (tmp_path / "corpus" / "chats.jsonl").touch()
    (tmp_path / "mytext.txt").write_text("one\n\ntwo")
    monkeypatch.chdir(tmp_path)
    failed = command(*arguments, code=2)
    assert failed.err.startswith(f"error: there is no {message}")
    assert " As a name on the Hub: no repository " in failed.err and failed.err.count("\n") == 1


def test_a_mistyped_path_is_told_first_without_a_network(hub_server, command, offline, tmp_path, monkeypatch):
    (tmp_path / "mytext.txt").write_text("one\n\ntwo")
    monkeypatch.chdir(tmp_path)
    assert command("tokenize", "mytext", code=1).err == (
        "error: there is no file or folder mytext; did you mean 'mytext.txt'? As a name on the Hub: the Hub can't be "
        "asked about mytext: offline mode is on; unset HF_HUB_OFFLINE\n"
    )
    assert "mytext.tx; did you mean 'mytext.txt'? As a name" in command("tokenize", "mytext.tx", code=1).err
    assert command("tokenize", "my/text.txt", code=2).err.startswith("error: 'my/text.txt' is neither a file, nor a ")


def test_what_the_hub_knows_is_no_mistyped_path(hub_server, command, tmp_path):
    hub_server.add_dataset("x/texts", {"train.jsonl": b'{"text": "a"}\n{"text": "b"}\n'})
    assert command("tokenize", "x/texts", "--split", "val", code=2).err.startswith("error: x/texts has no split 'val'")


@pytest.mark.slow
def test_benchmarks_that_can_not_be_had_end_a_run_at_once(hub_server, tiny, tmp_path):
    arguments = ["train", "--config", tiny / "tiny.yaml", "--run-name", "unreachable"]
    arguments.append("trainer.eval=[{evaluator:mcq,benchmarks:[arc]}]")
    failed = run(*arguments, code=1, HF_HUB_OFFLINE="1", HF_HOME=str(tmp_path))
    assert "the Hub can't be asked about allenai/ai2_arc: offline mode is on" in failed.stderr
    assert failed.stderr.count("\n") == 1 and "trainer.eval=[]" in failed.stderr
    assert not (tiny / "runs" / "unreachable").exists()


# ------------------------------------------------------------------------------------------------ models


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A configuration that trains for four iterations, and its data."""
    folder = tmp_path_factory.mktemp("tiny")
    tokenize("sample", tokenizer="sample2k", data_dir=folder / "data")
    attn, ffn = {"num_heads": 2, "group_size": 2}, {"ffn_dim": 32}
    tree = {
        "model": {
            "core_model": {"num_layers": 1, "ffn": ffn, "attn": attn},
            "hidden_dim": 16,
            "context_window": 24,
            "vocab_size": 2048,
        },
        "trainer": {
            "training": {
                "batch_size": 3,
                "gradient_accumulation_steps": 1,
                "max_iters": 4,
                "lr_decay_iters": 4,
                "warmup_iters": 2,
                "eval_interval": 4,
                "eval_iters": 2,
                "log_interval": 1,
            },
            "dataset": {"name": "sample-tokenized"},
            "eval": [],
        },
        "general": {
            "device": "cpu",
            "paths": {"data_dir": str(folder / "data"), "checkpoint_dir": str(folder / "runs")},
        },
    }
    (folder / "tiny.yaml").write_text(yaml.safe_dump(tree))
    return folder


def test_a_trained_model_is_pushed_and_opens(hub_server, command, tiny):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    train = ["train", "--config", tiny / "tiny.yaml", "trainer.optimizer.lr=1e-3", "--run-name", "tiny run"]
    refused = command(*train, "--push", "--repo", "someone-else/model", code=1)
    assert "the push failed: the token gives no right" in refused.err
    assert "; to try again: stochastok train --config" in refused.err.splitlines()[-1]
    assert (tiny / "runs" / "tiny run" / "step_4" / "model.safetensors").exists()

    repo = f"{USER}/tiny-model"
    pushed = command(*train, "--push", "--repo", repo)  # complete by now
    assert pushed.out == f"{tiny / 'runs' / 'tiny run'}\n"
    assert "is complete; left alone" in pushed.err
    assert f"pushed to {hub_server.url}/{repo} (commit " in pushed.err
    files = hub_server.repos[f"models/{repo}"].files
    checkpoint = tiny / "runs" / "tiny run" / "step_4"
    assert {path for path in files if "/" not in path} == {
        ".gitattributes",
        "README.md",
        *(file.name for file in checkpoint.iterdir() if file.name != "optimizer.safetensors"),
    }
    assert files["model.safetensors"] == (checkpoint / "model.safetensors").read_bytes()
    assert files["run/config.yaml"] == (checkpoint.parent / "config.yaml").read_bytes()
    assert files["run/metrics.jsonl"] == (checkpoint.parent / "metrics.jsonl").read_bytes()
    card = files["README.md"].decode()
    last = json.loads((checkpoint.parent / "metrics.jsonl").read_text().splitlines()[-1])
    assert f"| validation/loss | {last['validation/loss']:.6g} |" in card
    assert "A `llama` language model trained with `stochastok` on `sample-tokenized`" in card
    assert "hidden_dim: 16" in card
    assert f"stochastok train --config {tiny / 'tiny.yaml'} --run-name 'tiny run' trainer.optimizer.lr=1e-3" in card

    model, tokenizer = AutoModelForCausalLM.from_pretrained(repo), AutoTokenizer.from_pretrained(repo)
    here = AutoModelForCausalLM.from_pretrained(checkpoint)
    ids = tokenizer("A text of some words.", return_tensors="pt")["input_ids"]
    assert ids.tolist()[0] == load_vocabulary("sample2k").encode("A text of some words.")
    assert torch.equal(model(ids).logits, here(ids).logits)


def test_a_run_is_pushed_under_its_name_when_it_ends(hub_server, command, tiny):
    train = ["train", "--config", tiny / "tiny.yaml", "general.logging.run_name_prefix=pushed", "--json"]
    done = command(*train, "--push", "--private")
    assert json.loads(done.out)["made"] is True
    repo = hub_server.repos[f"models/{USER}/pushed-sample-tokenized"]
    assert repo.private
    assert "model.safetensors" in repo.files and "optimizer.safetensors" not in repo.files
