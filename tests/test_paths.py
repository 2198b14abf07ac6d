"""Names from outside lead nowhere else, and names of new folders can be shown and written."""

import pytest

from stochastok_cli import paths
from stochastok_cli.errors import FAILED, UserError


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
