"""`stochastok doctor`: what it says of this machine and of broken ones, and that it never shows a token."""

import importlib.metadata
import json
import os
import sys

import pytest
import torch
from hub_server import TOKEN, USER

import stochastok_cli.cli.doctor  # noqa: F401 (registers the subcommand)
from stochastok_cli.cli import diagnosis
from stochastok_cli.cli.app import main


@pytest.fixture
def run(tmp_path, monkeypatch, capsys, hub_server):
    def run(*arguments):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["stochastok", "doctor", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        assert TOKEN not in out + err and "Traceback" not in err
        return ended.value.code, out, err

    return run


def test_a_machine_where_all_works(run, tmp_path):
    code, out, err = run("--json")
    shown = json.loads(out)
    assert (code, shown["problems"]) == (0, [])
    assert shown["packages"]["torch"] == torch.__version__
    assert shown["extras"]["hf"]["transformers"] == importlib.metadata.version("transformers")
    assert shown["expansion"]["works"] and "doctor --json" in err
    assert {"reachable": True, "token": True, "user": USER}.items() <= shown["hub"].items()
    assert shown["folders"]["data"]["path"] == str(tmp_path / "data") and list(tmp_path.iterdir()) == []
    if not torch.cuda.is_available():
        assert shown["devices"]["kernels"] == "reference" and "NVIDIA" in shown["devices"]["why"]
    code, out, _ = run("--quiet")
    assert code == 0 and out.endswith("Nothing is broken.\n") and f"  torch            {torch.__version__}\n" in out


def test_what_is_broken_comes_with_what_to_do(run, monkeypatch):
    version = importlib.metadata.version
    versions = {"numpy": "1.20", "wandb": "0.1"}
    monkeypatch.setattr(importlib.metadata, "version", lambda name: versions.get(name) or version(name))
    for name in ("gigatoken", "torch", "transformers"):
        monkeypatch.setitem(sys.modules, name, None)
    code, out, _ = run("--json")
    shown = json.loads(out)
    assert code == 1
    assert "numpy 1.20 is installed, and numpy>=2.0 is needed; pip install 'numpy>=2.0'" in shown["problems"]
    assert [problem.split(" (")[0] for problem in shown["problems"][1:]] == [
        "torch can't be imported",
        "gigatoken can't be imported",
        "extra hf: transformers can't be imported",
    ]
    assert any("wandb 0.1 is installed" in note for note in shown["notes"])
    assert "broken: numpy 1.20 is installed" in run("--quiet")[1]


@pytest.mark.parametrize(
    ("status", "body", "reachable", "note"),
    [
        (401, None, True, "the Hub refuses the token"),
        (503, None, False, "the Hub, or what stands in its place, answers 503"),
        (429, None, True, "the Hub limits the requests from here"),
        (0, b"<html>a proxy</html>", False, "what answers is not the Hub"),
    ],
)
def test_a_hub_that_does_not_serve_breaks_nothing(run, hub_server, status, body, reachable, note):
    hub_server.fail("GET", "whoami", status, body=body)
    code, out, _ = run("--json")
    shown = json.loads(out)
    assert code == 0 and shown["hub"]["reachable"] is reachable
    assert [entry.split(";")[0] for entry in shown["notes"]] == [note]


def test_no_hub_within_the_timeout_and_none_in_offline_mode(run, hub_server, monkeypatch):
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", "http://name:secret@127.0.0.1:9?token=secret")
    code, out, _ = run("--json", "--timeout", "1")
    shown = json.loads(out)
    assert code == 0 and shown["hub"]["endpoint"] == "http://127.0.0.1:9" and shown["hub"]["reachable"] is False
    assert "secret" not in out
    monkeypatch.setattr(constants, "ENDPOINT", "notaurl")
    (note,) = json.loads(run("--json")[1])["notes"]
    assert note.startswith("HF_ENDPOINT is no address that begins with https:// or http:// (notaurl)")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    hub_server.requests.clear()
    shown = json.loads(run("--json")[1])
    assert shown["hub"]["offline"] and shown["hub"]["reachable"] is None and hub_server.requests == []


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="there is no /proc")
def test_folders_that_can_not_be_made_are_named(run, tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to("nowhere")
    for name, value in (("HF_HOME", "/proc/none"), ("NUMBA_CACHE_DIR", tmp_path / "file"), ("TIKTOKEN_CACHE_DIR", "t")):
        monkeypatch.setenv(name, str(value))
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE"):
        monkeypatch.delenv(name, raising=False)
    _, out, _ = run("--data-dir", "/proc/none", "--checkpoint-dir", "link/below")
    assert [line for line in out.splitlines() if line.startswith("note: ")] == [
        "note: the cache of hub: /proc/none/hub can't be made; set HF_HOME or HF_HUB_CACHE",
        "note: the cache of datasets: /proc/none/datasets can't be made; set HF_HOME or HF_DATASETS_CACHE",
        f"note: the cache of numba: {tmp_path / 'file'} is no folder; set NUMBA_CACHE_DIR",
        "note: /proc/none can't be made; give another --data-dir",
        f"note: {tmp_path / 'link/below'} can't be made; give another --checkpoint-dir",
    ]
    assert out.endswith("Nothing is broken that every command needs.\n")
    assert "/proc/none, can't be made\n" in out and f"{tmp_path / 'file'}, no folder\n" in out
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_token_that_can_not_be_read_names_the_variable(run, tmp_path, monkeypatch):
    from huggingface_hub import constants

    (tmp_path / "file").write_bytes(b"\xff")
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH"):
        monkeypatch.delenv(name, raising=False)
    for path, variable in ((tmp_path / "file" / "token", "HF_HOME"), (tmp_path / "file", "HF_TOKEN_PATH")):
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(path))
        if variable == "HF_TOKEN_PATH":
            monkeypatch.setenv(variable, str(path))
        code, out, _ = run("--json")
        shown = json.loads(out)
        assert (code, shown["problems"], shown["hub"]["token"]) == (0, [], False)
        assert [note.split(";")[0].partition(": ")[2] for note in shown["notes"]] == [f"check {variable}"]


@pytest.mark.parametrize("part", ["platform.platform", "shutil.disk_usage"])
def test_a_part_that_fails_is_reported_and_the_others_are_shown(run, monkeypatch, part):
    def fail(*arguments):
        raise ValueError("no such thing")

    monkeypatch.setattr(part, fail)
    code, out, _ = run("--json")
    shown = json.loads(out)
    assert code == 1 and shown["hub"]["reachable"] and shown["expansion"]["works"]
    assert all("(ValueError: no such thing); " in problem for problem in shown["problems"])
    assert len(shown["problems"]) == (1 if part == "platform.platform" else 2)


def test_what_is_installed_is_read_as_the_sources_are(monkeypatch, tmp_path):
    sources = diagnosis.requirements()
    del sources["test"]  # has markers of its own
    texts = [f'{entry}; extra == "{extra}"' if extra else str(entry) for extra in sources for entry in sources[extra]]
    monkeypatch.setattr(diagnosis.stochastok_cli, "__file__", str(tmp_path / "stochastok_cli" / "__init__.py"))
    monkeypatch.setattr(importlib.metadata, "requires", lambda name: texts)
    installed = diagnosis.requirements()
    names = {extra: [entry.name for entry in entries] for extra, entries in sources.items()}
    assert {extra: [entry.name for entry in entries] for extra, entries in installed.items()} == names
