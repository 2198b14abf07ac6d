"""The folder of a report: what it replaces and what it refuses."""

import os
import sys
import warnings
from pathlib import Path

import pytest
from preloaded_python import run_python

import stochastok_cli.cli.runs  # noqa: F401 (registers the subcommand)
from stochastok_cli.cli.app import main
from stochastok_cli.errors import UserError
from stochastok_cli.report.html import write_report, write_runs_report
from stochastok_cli.report.plots import new_axes, plot_style
from stochastok_cli.report.report_folder import create_report_folder, require_report_folder
from tests.training.test_runs import write_run


def tree(folder) -> dict:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_one_report_replaces_the_other_whole(tmp_path):
    folder = tmp_path / "new" / "report"
    page = write_report(folder, [], [], command="x")
    assert page == folder / "report.html" and (folder / "results.json").is_file()
    (folder / ".DS_Store").write_bytes(b"")
    write_runs_report(folder, [], command="x")
    assert {*tree(folder)} == {"manifest.json", "report.html", "report.md", "runs.json"}
    assert [name for name in os.listdir(folder.parent) if not name.endswith(".lock")] == ["report"]


@pytest.mark.parametrize("name", ["notes.md", "plots/mine.png", "report.md"])
def test_files_of_the_user_are_kept(name, tmp_path):
    write_runs_report(tmp_path / "report", [], command="x")
    (tmp_path / "report" / name).write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(UserError, match=f"would replace {name}, which no report wrote or .*; name another folder"):
        write_runs_report(tmp_path / "report", [], command="y")
    assert tree(tmp_path) == before


def test_a_link_in_a_folder_is_kept(tmp_path):
    write_runs_report(tmp_path / "report", [], command="x")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_bytes(b"a")
    (tmp_path / "report" / "plots").rmdir()
    (tmp_path / "report" / "plots").symlink_to(tmp_path / "photos")
    with pytest.raises(UserError, match="would replace plots"):
        write_runs_report(tmp_path / "report", [], command="x")
    assert (tmp_path / "photos" / "a.png").read_bytes() == b"a"


@pytest.mark.parametrize("manifest", ['{"kind": "tokenized", "files": {}}', "no JSON", None])
def test_another_folder_is_refused(manifest, tmp_path):
    (tmp_path / "report.md").write_text("mine")
    if manifest is not None:
        (tmp_path / "manifest.json").write_text(manifest)
    with pytest.raises(UserError, match="would replace"):
        require_report_folder(tmp_path)
    assert (tmp_path / "report.md").read_text() == "mine"


def test_a_failure_leaves_the_older_report(tmp_path):
    folder = tmp_path / "report"
    write_runs_report(folder, [], command="x")
    before = tree(folder)

    def fails(temporary):
        (temporary / "report.md").write_text("half")
        raise RuntimeError

    with pytest.raises(RuntimeError):
        create_report_folder(folder, fails)
    assert tree(folder) == before


def test_folders_that_can_not_be_made(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    require_report_folder(tmp_path / "a" / "b" / "report")
    assert os.listdir(tmp_path) == []  # what was made to see whether it can be is removed
    for path in ("/proc/x", tmp_path / ("a" * 250)):
        with pytest.raises(UserError, match="can't be made"):
            require_report_folder(Path(path))
    (tmp_path / "link").symlink_to("nowhere")
    with pytest.raises(UserError, match="is a link to nowhere, which is not there"):
        require_report_folder(tmp_path / "link")


@pytest.mark.parametrize(
    ("report", "message"), [("", "current folder"), ("..", "current folder"), ("runs/a", "would replace config.yaml")]
)
def test_folders_that_are_refused(report, message, tmp_path, monkeypatch, capsys):
    write_run(tmp_path / "runs" / "a")
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["stochastok", "runs", "runs", "--report", report])
    with pytest.raises(SystemExit) as done:
        main()
    out, err = capsys.readouterr()
    assert (done.value.code, out) == (2, "") and message in err and len(err.splitlines()) == 1
    assert tree(tmp_path) == before


@pytest.mark.parametrize("more", [(), ("--compare", "a", "b")])
def test_a_report_is_there_also_where_stdout_is_full(more, tmp_path):
    for seed, name in enumerate("ab"):
        write_run(tmp_path / "runs" / name, f"general.seed={seed}")
    code = "import os; os.dup2(os.open('/dev/full', os.O_WRONLY), 1); from stochastok_cli.cli.app import main; main()"
    done = run_python("-c", code, "runs", "runs", "--report", "report", *more, cwd=tmp_path)
    assert done.returncode == 1 and "stdout can't be written" in done.stderr
    assert (tmp_path / "report" / "report.html").is_file()


def test_letters_that_the_font_lacks_give_no_warning(tmp_path):
    with warnings.catch_warnings(record=True) as shown:
        warnings.simplefilter("always")
        with plot_style():
            new_axes("実行").get_figure().savefig(tmp_path / "plot.png")
        assert not shown
        new_axes("実行").get_figure().savefig(tmp_path / "plot.png")
        assert shown  # matplotlib's own fonts lack them
