"""A folder is complete or not there, whatever happens to the command that makes it."""

import errno
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import filelock
import numpy as np
import pytest
from safetensors.numpy import save_file

from stochastok_cli import artifacts, atomic_writes
from stochastok_cli.errors import FAILED, USAGE, UserError
from stochastok_cli.manifest import FileInfo, HubSource, Manifest, SourceInfo, SplitInfo, TokenizerInfo, read_manifest


def write_two_files(folder: Path) -> Manifest:
    (folder / "a.bin").write_bytes(b"abc")
    (folder / "deeper").mkdir()
    (folder / "deeper" / "b.bin").write_bytes(b"")
    return Manifest(kind="toy")


def test_a_folder_appears_complete_with_its_manifest(tmp_path):
    final = tmp_path / "new" / "thing"
    made = artifacts.create_artifact(final, {"seed": 1, "shape": (1, 2)}, write_two_files)
    assert made.created
    manifest = json.loads((final / "manifest.json").read_text())
    assert manifest == made.manifest.to_json()
    assert made.manifest == read_manifest(final)
    assert manifest["options"] == {"seed": 1, "shape": [1, 2]}
    assert manifest["files"]["a.bin"] == {
        "bytes": 3,
        "sha256": "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad",
    }
    assert set(manifest["files"]) == {"a.bin", "deeper/b.bin"}
    assert len(made.manifest.fingerprint) == 32


@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o027, 0o640), (0o077, 0o600)])
def test_files_have_the_mode_of_the_umask_whoever_writes_them(tmp_path, umask, mode):
    (elsewhere := tmp_path / "elsewhere").touch(0o600)

    def build(folder):
        save_file({"w": np.ones(2)}, folder / "private.safetensors")
        assert stat.S_IMODE((folder / "private.safetensors").stat().st_mode) == 0o600
        (folder / "deep").mkdir()
        with tempfile.NamedTemporaryFile(dir=folder / "deep", delete=False):
            pass
        (folder / "program").touch()
        (folder / "program").chmod(0o700)
        (folder / "link").symlink_to(elsewhere)
        return Manifest("test")

    before = os.umask(umask)
    try:
        made = artifacts.create_artifact(tmp_path / "a", {}, build).path
        os.makedirs(tmp_path / "b")
        build(tmp_path / "b")
        atomic_writes.rename_into_place(tmp_path / "b", tmp_path / "c")
    finally:
        os.umask(before)
    for folder in (made, tmp_path / "c"):
        files = [file for file in folder.rglob("*") if file.is_file() and file.name not in ("program", "link")]
        assert {stat.S_IMODE(file.stat().st_mode) for file in files} == {mode}
        assert stat.S_IMODE((folder / "program").stat().st_mode) == mode | 0o700
    assert stat.S_IMODE(elsewhere.stat().st_mode) == 0o600


def test_a_manifest_is_written_as_it_was_read():
    tree = {
        "format": 1,
        "kind": "expanded",
        "tokenizer": {"name": "gpt2", "fingerprint": "0123abcd", "size": 50257},
        "dtype": "uint16",
        "end_of_text": 50256,
        "splits": {"train": {"documents": 2, "tokens": 9}, "val": {"documents": 1}},
        "made_from": {"name": "a", "fingerprint": "4567cdef", "licence": None},
        "unknown_tokens": 3,
        "added_later": [1],
        "pulled_from": {"repo": "me/a", "asked": None, "revision": "89ab"},
        "options": {"p": 0.1},
        "made_by": {"version": "0.1.0", "command": "stochastok", "host": "added later"},
        "files": {"train.bin": {"bytes": 18, "sha256": "ef01"}},
    }
    manifest = Manifest.from_json(tree)
    assert json.dumps(manifest.to_json()) == json.dumps(tree)
    assert manifest.tokenizer == TokenizerInfo("gpt2", "0123abcd", 50257)
    assert manifest.splits == {"train": SplitInfo(2, 9), "val": SplitInfo(1)}
    assert manifest.made_from == SourceInfo("a", "4567cdef", None)
    assert manifest.pulled_from == HubSource("me/a", None, "89ab")
    assert manifest.files == {"train.bin": FileInfo(18, "ef01")}
    assert manifest.extra == {"added_later": [1]}


def test_a_manifest_without_entries_is_read():
    assert Manifest.from_json({}) == Manifest()
    assert Manifest.from_json({"tokenizer": None, "options": None}).options == {}


def test_a_manifest_of_a_later_format_is_refused(tmp_path):
    """Its entries may mean something else. `--force` makes the folder again."""
    message = r"manifest.json has the format 2, and this version reads formats up to 1; upgrade stochastok"
    with pytest.raises(UserError, match=message) as caught:
        Manifest.from_json({"format": 2})
    assert caught.value.exit_code == FAILED
    assert Manifest.from_json({"format": 1}) == Manifest()
    final = tmp_path / "thing"
    artifacts.create_artifact(final, {}, write_two_files)
    tree = json.loads((final / "manifest.json").read_text())
    (final / "manifest.json").write_text(json.dumps({**tree, "format": 2}))
    for read in (read_manifest, lambda folder: artifacts.create_artifact(folder, {}, write_two_files)):
        with pytest.raises(UserError, match=f"^{final}/{message}$"):
            read(final)
    assert artifacts.create_artifact(final, {}, write_two_files, force=True).manifest.format == 1


def test_the_same_options_leave_it_alone_and_others_are_named(tmp_path):
    final = tmp_path / "thing"
    artifacts.create_artifact(final, {"seed": 1, "p": 0.1}, write_two_files)

    def must_not_run(folder):
        raise AssertionError("built again")

    again = artifacts.create_artifact(final, {"seed": 1, "p": 0.1}, must_not_run)
    assert not again.created
    assert again.manifest.kind == "toy"
    with pytest.raises(UserError, match=r"seed \(there 1, now 2\).*--force") as caught:
        artifacts.create_artifact(final, {"seed": 2, "p": 0.1}, must_not_run)
    assert caught.value.exit_code == USAGE
    assert (
        artifacts.create_artifact(final, {"seed": 2, "p": 0.1}, write_two_files, force=True).manifest.options["seed"]
        == 2
    )


def test_a_damaged_folder_is_made_again(tmp_path):
    final = tmp_path / "thing"
    artifacts.create_artifact(final, {"seed": 1}, write_two_files)
    for find_damage in (lambda: (final / "a.bin").write_bytes(b"a"), (final / "deeper" / "b.bin").unlink):
        find_damage()
        assert artifacts.create_artifact(final, {"seed": 1}, write_two_files).created
        assert (final / "a.bin").read_bytes() == b"abc"
    assert not artifacts.create_artifact(final, {"seed": 1}, write_two_files).created


def test_bytes_of_a_path_that_are_not_utf8_are_written_and_read(tmp_path):
    """Python has such a byte as half a surrogate pair, which UTF-8 does not encode and JSON escapes."""
    options = {"source": os.fsdecode(b"a\xff\xe9.txt"), "other": "é日"}
    made = artifacts.create_artifact(tmp_path / "thing", options, write_two_files)
    assert '"a\\udcff\\udce9.txt"' in (made.path / "manifest.json").read_text(encoding="utf-8")
    assert not artifacts.create_artifact(tmp_path / "thing", options, write_two_files).created
    assert read_manifest(made.path).options == options


def test_a_folder_without_a_manifest_is_not_overwritten(tmp_path):
    final = tmp_path / "mine"
    final.mkdir()
    (final / "train.bin").write_bytes(b"precious")
    with pytest.raises(UserError, match="no manifest"):
        artifacts.create_artifact(final, {}, write_two_files)
    assert (final / "train.bin").read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(errno.ENOSPC, "No space left"), "no space is left on the disk for .*thing; free some"),
        (OSError(errno.EDQUOT, "Quota exceeded"), "no space is left on the disk for .*thing; free some"),
        (OSError(errno.EFBIG, "File too large"), "thing can't be written: File too large"),
        (KeyboardInterrupt(), None),
        (ValueError("bug"), None),
    ],
)
def test_what_fails_leaves_nothing(tmp_path, error, message):
    def fail(folder):
        write_two_files(folder)
        raise error

    with pytest.raises((UserError, KeyboardInterrupt, ValueError), match=message) as caught:
        artifacts.create_artifact(tmp_path / "thing", {}, fail)
    if isinstance(error, OSError):
        assert caught.value.exit_code == FAILED
    assert [f.name for f in tmp_path.iterdir() if not f.name.endswith(".lock")] == []


def test_the_old_result_survives_a_failing_remake(tmp_path):
    final = tmp_path / "thing"
    artifacts.create_artifact(final, {}, write_two_files)

    def fail(folder):
        raise OSError(errno.ENOSPC, "No space left")

    with pytest.raises(UserError):
        artifacts.create_artifact(final, {}, fail, force=True)
    assert (final / "a.bin").read_bytes() == b"abc"


def test_the_old_result_survives_a_rename_that_fails(tmp_path, monkeypatch):
    """It has made way for the new one, which can't take its place."""
    final = tmp_path / "thing"
    artifacts.create_artifact(final, {"seed": 1}, write_two_files)
    rename = os.rename

    def fail(source, target):
        if str(source).endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        rename(source, target)

    monkeypatch.setattr(os, "rename", fail)
    with pytest.raises(OSError, match="Input/output"):
        artifacts.create_artifact(final, {"seed": 2}, write_two_files, force=True)
    assert [f.name for f in tmp_path.iterdir() if not f.name.endswith(".lock")] == ["thing"]
    assert not artifacts.create_artifact(final, {"seed": 1}, write_two_files).created


def finish_before_the_lock(monkeypatch, final, options):
    """Another process makes the folder after the next call has seen none, and before that call has the lock."""
    lock, others = artifacts._lock, [options]

    def lock_after_another(path):
        if others:
            artifacts.create_artifact(final, others.pop(), write_two_files)
        return lock(path)

    monkeypatch.setattr(artifacts, "_lock", lock_after_another)


@pytest.mark.parametrize("is_there", [False, True])
def test_a_folder_that_another_process_has_just_finished(tmp_path, monkeypatch, is_there):
    final = tmp_path / "thing"
    if is_there:  # an empty folder counts as absent
        final.mkdir()

    def must_not_run(folder):
        raise AssertionError("built again")

    finish_before_the_lock(monkeypatch, final, {"seed": 1})
    assert not artifacts.create_artifact(final, {"seed": 1}, must_not_run).created
    shutil.rmtree(final)
    finish_before_the_lock(monkeypatch, final, {"seed": 1})
    with pytest.raises(UserError, match=r"seed \(there 1, now 2\).*--force"):
        artifacts.create_artifact(final, {"seed": 2}, must_not_run)
    assert read_manifest(final).options == {"seed": 1}
    final.rename(tmp_path / "other")
    finish_before_the_lock(monkeypatch, final, {"seed": 1})
    assert artifacts.create_artifact(final, {"seed": 2}, write_two_files, force=True).created


def test_one_maker_at_a_time(tmp_path):
    with filelock.FileLock(tmp_path / ".thing.lock"), pytest.raises(UserError, match="another process") as caught:
        artifacts.create_artifact(tmp_path / "thing", {}, write_two_files)
    assert caught.value.exit_code == FAILED


@pytest.mark.parametrize("content", ["{", "[]", "garbage", '{"splits": [1]}', '{"files": {"a.bin": 3}}'])
def test_a_damaged_manifest_is_said_and_mended_by_force(tmp_path, content):
    final = tmp_path / "thing"
    artifacts.create_artifact(final, {}, write_two_files)
    (final / "manifest.json").write_text(content)
    with pytest.raises(UserError, match="manifest.json is damaged: .*; make the folder again with --force"):
        artifacts.create_artifact(final, {}, write_two_files)
    assert artifacts.create_artifact(final, {}, write_two_files, force=True).manifest == read_manifest(final)


@pytest.mark.slow
def test_killed_at_any_moment_and_run_again(tmp_path):
    """kill -9 while `stochastok expand` runs; the next run's bytes equal an uninterrupted run's."""
    command = [sys.executable, "-m", "stochastok_cli"]
    tokenize = [*command, "tokenize", "sample", "--tokenizer", "sample2k", "--data-dir", str(tmp_path)]
    subprocess.run(tokenize, check=True, capture_output=True)
    expand = [*command, "expand", "sample-tokenized", "-p", "0.5", "--data-dir", str(tmp_path), "--out-name"]
    subprocess.run([*expand, "whole"], check=True, capture_output=True)
    root = tmp_path / "data_as_memmaps"
    for i in range(6):
        process = subprocess.Popen([*expand, "killed"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while not (root / ".killed.partial").exists() and process.poll() is None:
            time.sleep(0.001)
        time.sleep(0.004 * i)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        if (root / "killed").exists():
            assert read_manifest(root / "killed") is not None
    subprocess.run([*expand, "killed"], check=True, capture_output=True)
    for name in ("train.bin", "val.bin"):
        assert (root / "killed" / name).read_bytes() == (root / "whole" / name).read_bytes()
    assert not (root / ".killed.partial").exists()


def test_other_options_are_told_in_words(tmp_path):
    """Hashes are not shown; the size of the source is no option where `--limit` differs."""
    manifest = Manifest(tokenizer=TokenizerInfo("gpt2", "a" * 32, 50257))
    before = {"tokenizer": "a" * 32, "source": "b" * 32, "documents": None, "source_bytes": 8, "disjoint": True}

    def refusal(now: dict) -> str:
        with pytest.raises(UserError) as refused:
            artifacts.create_artifact(tmp_path / "made", before | now, lambda folder: manifest)
        return str(refused.value).partition("options: ")[2].partition(";")[0]

    artifacts.create_artifact(tmp_path / "made", before, lambda folder: manifest)
    assert refusal({"tokenizer": "c" * 32 + "-07f3"}) == "tokenizer (there 'gpt2', now another)"
    assert refusal({"source": "c" * 32}) == "source (made again or changed since)"
    assert refusal({"documents": "file", "disjoint": None}) == (
        "disjoint (there on, now not given), documents (there not given, now 'file')"
    )
    assert refusal({"source_bytes": 9}) == "bytes of the source (there 8, now 9)"
    assert refusal({"source_bytes": None, "limit": 2}) == "limit (there not given, now 2)"
