"""What errors suggest."""

import pytest

from stochastok_cli.errors import similar_path


@pytest.mark.parametrize(
    ("path", "suggestion"),
    [
        ("texts/wrods.txt", "texts/words.txt"),
        ("text/words.tx", "texts/words.txt"),
        ("./text", "texts"),
        ("texts/../text", "texts/../texts"),
        ("{root}/text", "{root}/texts"),
        ("texts", ""),  # it is there
        ("zebra", ""),
        ("texts/zebra", ""),
        ("texts/words.txt/below", ""),
        ("hiden", ""),
        (".hiden", ".hidden"),
        ("x" * 300, ""),
    ],
)
def test_a_path_that_is_not_there_suggests_a_similar_one(tmp_path, monkeypatch, path, suggestion):
    (tmp_path / "texts").mkdir()
    (tmp_path / "texts" / "words.txt").touch()
    (tmp_path / ".hidden").touch()
    monkeypatch.chdir(tmp_path)
    expected = suggestion and f"; did you mean {suggestion.format(root=tmp_path)!r}?"
    assert similar_path(path.format(root=tmp_path)) == expected
