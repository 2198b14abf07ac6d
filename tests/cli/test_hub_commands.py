"""`--pull` and `--push` of `tokenize` and `expand`, against a server of our own that speaks the Hub's protocol."""

import os
import subprocess
import sys
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest

from stochastok_cli.data import exchange
from stochastok_cli.tokens.vocabulary import load_vocabulary

TOKENS = {"ids": [[464, 3290, 50256], [1212, 318, 50256], [40, 50256]], "len": [3, 3, 2]}


def run(*args, code=0, **environment):
    done = subprocess.run(
        [sys.executable, "-m", "stochastok_cli", *map(str, args)],
        capture_output=True,
        text=True,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def parquet(columns) -> bytes:
    sink = pa.BufferOutputStream()
    pyarrow.parquet.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


def flat(path, split):
    return np.fromfile(path / f"{split}.bin", np.uint16).tolist()


def test_push_then_pull_on_a_clean_machine(hub_server, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    corpus = tmp_path / "tiny.txt"
    corpus.write_text("\n\n".join(f"document number {i} of this corpus" for i in range(40)))
    run("tokenize", corpus, "--data-dir", here, "--push", "--hf-username", "someone")
    pushed = run("expand", "tiny-tokenized", "-p", "0.5", "--data-dir", here, "--push", "--hf-username", "someone")
    assert "pushed to" in pushed.stderr
    pulls = [("tokenize", "someone/tiny"), ("expand", "tiny-tokenized", "-p", "0.5")]
    for command, name in zip(pulls, ("tiny-tokenized", "tiny-tokenized-stochastok0.5"), strict=True):
        done = run(*command, "--pull", "--hf-username", "someone", "--repo", f"someone/{name}", "--data-dir", there)
        path = there / "data_as_memmaps" / name
        assert done.stdout.strip() == str(path)
        for split in ("train", "val"):
            assert (path / f"{split}.bin").read_bytes() == (
                here / "data_as_memmaps" / name / f"{split}.bin"
            ).read_bytes()
        run(*command, "--pull", "--repo", f"someone/{name}", "--data-dir", there, HF_HUB_OFFLINE="1")  # left alone


def test_pull_the_references_kind_of_dataset(hub_server, tmp_path):
    """No manifest: gpt2; SOURCE itself is not tokenized, so the published name is taken."""
    hub_server.add_dataset("Skylion007/openwebtext", {"train.parquet": parquet({"text": ["a", "b"]})})
    files = {f"data/{s}-00000.parquet": parquet(TOKENS) for s in ("train", "val")}
    hub_server.add_dataset("anyasims/openwebtext-tokenized", files)
    done = run("tokenize", "Skylion007/openwebtext", "--pull", "--data-dir", tmp_path)
    path = tmp_path / "data_as_memmaps" / "openwebtext-tokenized"
    assert done.stdout.strip() == str(path)
    assert flat(path, "train") == flat(path, "val") == list(chain(*TOKENS["ids"]))
    assert load_vocabulary("gpt2").decode(flat(path, "val")[:2]) == "The dog"


def test_rows_without_an_end_get_one(hub_server, tmp_path):
    rows = {"ids": [[464], [], [1212, 50256]]}
    hub_server.add_dataset("x/ends", {f"data/{s}-0.parquet": parquet(rows) for s in ("train", "validation")})
    run("tokenize", "x/ends", "--pull", "--data-dir", tmp_path)
    assert flat(tmp_path / "data_as_memmaps" / "ends-tokenized", "train") == [464, 50256, 50256, 1212, 50256]


@pytest.mark.parametrize(
    ("rows", "args", "message", "code"),
    [
        ({"ids": [[1, 60000]]}, [], "the id 60000", 2),
        ({"ids": [[3000]]}, ["--tokenizer", "sample2k"], "the id 3000", 2),
        ({"tokens": [[1]]}, ["--repo", "x/bad"], "no column 'ids'", 2),
        ({"ids": ["text"]}, ["--repo", "x/bad"], "not lists of token ids", 2),
        (None, ["--repo", "x/absent"], "x/absent", 1),
        (None, ["--repo", "x/bad@nothing"], "nothing", 1),
    ],
)
def test_a_bad_pull_is_one_line_and_leaves_nothing(hub_server, tmp_path, rows, args, message, code):
    rows = rows or TOKENS
    hub_server.add_dataset("x/bad", {f"data/{s}-0.parquet": parquet(rows) for s in ("train", "val")})
    command = [
        sys.executable,
        "-m",
        "stochastok_cli",
        "tokenize",
        "x/bad",
        "--pull",
        "--data-dir",
        str(tmp_path),
        *args,
    ]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode in ({code} if code == 2 else {1, 2}), done.stderr
    assert message in done.stderr
    assert done.stderr.count("\n") == 1
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


def test_a_killed_pull_goes_on_where_it_was(hub_server, tmp_path):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    for name in ("x/whole", "x/killed"):
        hub_server.add_dataset(name, files)
    run("tokenize", "x/whole", "--pull", "--data-dir", tmp_path)
    root = tmp_path / "data_as_memmaps"
    assert memmaps(root / "whole-tokenized") == expected
    command = ["tokenize", "x/killed", "--pull", "--data-dir", str(tmp_path)]
    held = hub_server.fail("GET", "killed.*val.*parquet", hold=True, after=len(hub_server.asked("GET.*val")) - 1)
    killed = subprocess.Popen([sys.executable, "-m", "stochastok_cli", *command], stderr=subprocess.DEVNULL)
    assert held.asked.wait(30)
    killed.kill()
    killed.wait()
    held.released.set()
    arrived = root / ".killed-tokenized.pull"
    assert (arrived / "train.bin").read_bytes() == expected["train"]
    assert not (root / "killed-tokenized").exists()
    run(*command)
    assert memmaps(root / "killed-tokenized") == expected
    assert not arrived.exists()


def test_a_pull_killed_within_a_split_loses_its_last_seconds_only(hub_server, tmp_path):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    hub_server.add_dataset("x/within", files)
    code = f"""
import os, pathlib, signal
from stochastok_cli.data import exchange, partial_pull
partial_pull.SAVE_SECONDS = 0
def progress(what, done, total):
    if what == "pull train" and done >= 700:
        os.kill(os.getpid(), signal.SIGKILL)
exchange.pull_corpus(["x/within"], "within", pathlib.Path({str(tmp_path)!r}), progress=progress)
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == -9
    arrived = tmp_path / "data_as_memmaps" / ".within.pull"
    with open(arrived / "train.bin", "ab") as torn:
        torn.write(b"half a token")
    seen = []
    made = exchange.pull_corpus(["x/within"], "within", tmp_path, progress=lambda *state: seen.append(state))
    assert seen[0][0] == "pull train" and seen[0][1] > 700
    assert memmaps(made.path) == expected
    assert made.manifest["splits"] == {s: {"documents": 1200, "tokens": 3000} for s in ("train", "val")}


def test_what_arrived_of_another_revision_is_not_mixed_in(hub_server, tmp_path, monkeypatch):
    files = long_corpus()
    expected = {split: files.pop(split) for split in ("train", "val")}
    repo = hub_server.add_dataset("x/moved", {f"data/{s}-0.parquet": parquet(TOKENS) for s in ("train", "val")})

    def interrupt(what, done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        exchange.pull_corpus(["x/moved"], "moved", tmp_path, progress=interrupt)
    assert (tmp_path / "data_as_memmaps" / ".moved.pull" / "train.bin").stat().st_size
    repo.commit(files)
    monkeypatch.setattr(os, "link", lambda *_: (_ for _ in ()).throw(OSError("no links here")))
    made = exchange.pull_corpus(["x/moved"], "moved", tmp_path)
    assert memmaps(made.path) == expected
    assert made.manifest["options"]["revision"] == repo.head


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


def test_text_from_the_hub(hub_server, tmp_path):
    texts = [f"text number {i}" for i in range(300)]
    hub_server.add_dataset("anyone/texts", {"data/train-0.parquet": parquet({"text": texts})})
    done = run("tokenize", "anyone/texts", "--data-dir", tmp_path)
    path = tmp_path / "data_as_memmaps" / "texts-tokenized"
    assert done.stdout.strip() == str(path)
    decoded = load_vocabulary("gpt2").decode(flat(path, "train") + flat(path, "val"))
    assert sorted(decoded.split("<|endoftext|>")[:-1]) == sorted(texts)
