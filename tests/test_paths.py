"""Names from outside lead nowhere else, and names of new folders can be shown and written."""

import pytest

from stochastok_cli import expand, make_langgame, paths, tokenize
from stochastok_cli.errors import FAILED, USAGE, UserError


@pytest.mark.parametrize(
    "name", ["", "..", "a/b", "/abs", ".hidden", "a\\b", "a\nb", "a\x1b[31mb", "a\0", "a\x7f", "a\u2028b", "a\udcffb"]
)
def test_names_that_lead_elsewhere_or_are_not_printable(name):
    with pytest.raises(UserError, match="name of a folder") as caught:
        paths.validate_folder_name(name)
    assert str(caught.value).isprintable()
    for good in ("corpus-tokenized-stochastok0.1", "größe 日本"):
        assert paths.validate_folder_name(good) == good


@pytest.mark.parametrize(
    ("call", "what"),
    [
        (lambda: tokenize("", tokenizer="sample2k"), "the source"),
        (lambda: tokenize("sample", tokenizer="sample2k", data_dir=""), "data_dir"),
        (lambda: tokenize("sample", tokenizer=""), "the name of the tokenizer"),
        (lambda: make_langgame(train_size=4, val_size=1, tokenizer="sample2k", data_dir=""), "data_dir"),
        (lambda: expand(""), "the name of the dataset"),
        (lambda: expand("x", data_dir=""), "data_dir"),
    ],
)
def test_an_empty_path_is_not_the_current_folder(tmp_path, monkeypatch, call, what):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.txt").write_text("one\n\ntwo\n")
    with pytest.raises(UserError, match=f"^{what} is empty; ") as caught:
        call()
    assert caught.value.exit_code == USAGE
    assert [file.name for file in tmp_path.iterdir()] == ["text.txt"]


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../x", "a/../../x", "a//b", "", ".", "a/./b", "a\\b", "a\0b", "link/x"]
)
def test_a_name_from_outside_stays_inside(tmp_path, name):
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link").symlink_to(tmp_path)
    with pytest.raises(UserError, match="leads out of") as caught:
        paths.path_inside(folder, name)
    assert caught.value.exit_code == FAILED
    (folder / "file").symlink_to(tmp_path / "elsewhere")  # as in the cache of the Hub, where files are links
    assert paths.path_inside(folder, "file") == folder / "file"
    assert paths.path_inside(folder, "deeper/x.bin") == folder / "deeper" / "x.bin"
