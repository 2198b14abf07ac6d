"""Names of repositories on the Hub, as people type them."""

import re


def is_repo_id(name: str) -> bool:
    """Whether `name` can be a dataset id of the Hub rather than a path: `owner/name` or an old one-word id.

    >>> [is_repo_id(n) for n in ("owner/name", "squad", "./corpus", "texts/corpus.txt", "a/b/c", "corpus.txt")]
    [True, True, False, False, False, False]
    """
    suffix = r"\.(txt|jsonl?|csv|parquet|arrow|gz|xz|bz2|zst|zip|tar)$"
    return bool(re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name)) and not re.search(suffix, name)


def parse_repo_id(name: str) -> tuple[str, str | None]:
    """The repository and the revision of `R[@REVISION]`.

    >>> parse_repo_id("owner/name@v1.0"), parse_repo_id("owner/name")
    (('owner/name', 'v1.0'), ('owner/name', None))
    """
    repo, _, revision = name.partition("@")
    return repo, revision or None
