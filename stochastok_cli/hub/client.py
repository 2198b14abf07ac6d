"""Requests to the Hub: the libraries are kept quiet, requests are repeated, and failures are explained in one line."""

import json
import re
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from stochastok_cli.errors import FAILED, UserError, one_line, short_name, similar_path
from stochastok_cli.quiet_libraries import quiet

RETRY_WAITS = (1, 2, 4, 8, 8)  # seconds between attempts, as in `huggingface_hub`
TRANSIENT_STATUSES = (408, 429, 500, 502, 503, 504)  # those that `huggingface_hub` retries
# The HTTP libraries that the versions of `huggingface_hub` and `datasets` use.
TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp")
LIBRARIES = (*TRANSPORTS, "huggingface_hub", "hf_xet", "datasets", "fsspec", "pyarrow")
LONGEST_WAIT = 600  # seconds; the Hub counts requests in windows of five minutes
_LOG_IN = "set HF_TOKEN or run `hf auth login`"
Result = TypeVar("Result")


class NotOnHub(UserError):
    """The Hub does not know a repository, or it can't be asked: the name may be that of something else."""


@contextmanager
def no_path(name: str, what: str = "file or folder") -> Iterator[None]:
    """A context for requests about what a user has named by a path or by an id on the Hub, where there is no such path.

    An error says that first, with a path that may have been meant: whoever mistypes a path knows nothing of the Hub.
    """
    try:
        yield
    except NotOnHub as error:
        suggestion = similar_path(name)
        raise NotOnHub(
            f"there is no {what} {short_name(name)}{suggestion or '.'} As a name on the Hub: {error}",
            exit_code=error.exit_code,
        ) from error


@contextmanager
def hub_errors(
    repo: str, revision: str | None = None, *, retry_command: str = "", or_cache: bool = False
) -> Iterator[None]:
    """A context for requests about a repository: errors of the libraries become one UserError.

    Args:
        repo: the repository, for messages.
        revision: the revision that is requested, for messages.
        retry_command: the command that an error suggests where trying again may help.
        or_cache: whether the files may be in the cache, so that offline mode is not an error.
    """
    from huggingface_hub import constants, errors

    try:
        if constants.HF_HUB_OFFLINE and not or_cache:
            raise errors.OfflineModeIsEnabled
        with quiet("huggingface_hub", *(["datasets"] if "datasets" in sys.modules else [])):
            yield
    except Exception as error:
        explained = error if isinstance(error, UserError) else _explain(error, repo, revision)
        if explained is None:
            raise
        if retry_command and explained.exit_code == FAILED:
            explained = UserError(
                f"the push failed: {explained}", fix=f"to try again: {retry_command}", exit_code=FAILED
            )
        if explained is error:
            raise
        raise explained from error


def retry(call: Callable[[], Result]) -> Result:
    """`call()`, repeated while the Hub is overloaded: for requests that `huggingface_hub` does not repeat itself."""
    for wait in RETRY_WAITS:
        try:
            return call()
        except Exception as error:
            delay = _retry_after(error)
            if delay is None:
                raise
            time.sleep(max(wait, delay))
    return call()


def none_if_unreachable(call: Callable[[], Result]) -> Result | None:
    """`call()`, or None if the Hub can't be reached. Errors with which the Hub answers are raised."""
    try:
        return call()
    except Exception as error:
        if _response(error) is not None or not any(map(_is_transport, _chain(error))):
            raise
        return None


def _retry_after(error: Exception) -> float | None:
    """The seconds to wait by the response's headers (0 where they give none); None if the error is not transient."""
    response = _response(error)
    if response is None:
        # A gateway's HTML page where the client expects JSON, or a broken connection. A server that can't be connected
        # to at all is not tried again, so that nobody waits for it.
        broken = any(_is_transport(link) and "Connect" not in type(link).__name__ for link in _chain(error))
        return 0 if broken or isinstance(error, json.JSONDecodeError) else None
    if response.status_code not in TRANSIENT_STATUSES:
        return None
    seconds = re.search(r"\bt=([0-9]+)", response.headers.get("ratelimit", "")) if response.status_code == 429 else None
    after = seconds[1] if seconds else response.headers.get("retry-after", "")
    return min(int(after), LONGEST_WAIT) if re.fullmatch("[0-9]{1,9}", after) else 0


def _chain(error: BaseException) -> list[Any]:
    """The error and its causes, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _response(error: Exception) -> Any:
    """The HTTP response of the Hub that caused an error, or None."""
    return next((link.response for link in _chain(error) if getattr(link, "response", None) is not None), None)


def _is_transport(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in TRANSPORTS


def _explain(error: Exception, repo: str, revision: str | None) -> UserError | None:
    """A failure of the libraries as one line for the user; None if it is not about the Hub."""
    from huggingface_hub import constants, errors, get_token

    chain = _chain(error)

    def caught(*kinds: type[BaseException]) -> Any:
        return next((link for link in chain if isinstance(link, kinds)), None)

    if caught(errors.HFValidationError):
        return NotOnHub(f"{repo!r} is not a name of a repository on the Hub", fix="expected OWNER/NAME")
    if caught(errors.LocalTokenNotFoundError):
        return _failed("no Hub token is set", _LOG_IN)
    library = next((link for link in chain if type(link).__module__.startswith(("datasets.", "pyarrow."))), None)
    if caught(errors.GatedRepoError) or "is a gated dataset" in str(library):  # `datasets` drops the cause
        return _failed(f"access to {repo} must be asked for", f"see {constants.ENDPOINT}/datasets/{repo}")
    if caught(errors.RepositoryNotFoundError):
        why = "this token does not open it" if get_token() else "no token is set"
        return NotOnHub(f"no repository {repo} is found on the Hub: it does not exist, or it is private and {why}")
    if caught(errors.RevisionNotFoundError):
        return UserError(f"{repo} on the Hub has no revision {revision!r}")
    if http := caught(errors.HfHubHTTPError):
        return _explain_status(http.response.status_code, one_line(http.server_message or ""), repo)
    if constants.HF_HUB_OFFLINE and caught(errors.OfflineModeIsEnabled, ConnectionError):
        what = f"the Hub can't be asked about {repo}: offline mode is on"
        return NotOnHub(what, fix="unset HF_HUB_OFFLINE", exit_code=FAILED)
    if caught(ConnectionError, TimeoutError, errors.LocalEntryNotFoundError) or any(map(_is_transport, chain)):
        what = f"the Hub can't be reached about {repo}"
        return NotOnHub(what, fix="check the network connection", exit_code=FAILED)
    if library or (isinstance(error, OSError) and error.errno is None):  # pyarrow raises such errors for damaged files
        damage = library or error
        if type(damage).__name__ == "DatasetGenerationError":  # it says nothing itself
            damage = damage.__cause__ or damage
        return _failed(f"{repo} on the Hub can't be read: {one_line(str(damage)) or type(damage).__name__}")
    if not isinstance(error, OSError | MemoryError) and _is_from_a_library(error):
        return _failed(
            f"what the Hub answers about {repo} can't be read ({one_line(f'{type(error).__name__}: {error}')})"
        )
    return None


def _is_from_a_library(error: Exception) -> bool:
    """Whether an exception was raised inside of a call to a library rather than by our own code."""
    modules = [frame.f_globals.get("__name__", "") for frame, _ in traceback.walk_tb(error.__traceback__)]
    ours = [i for i, module in enumerate(modules) if module.split(".")[0] == __name__.split(".")[0]]
    return any(module.split(".")[0] in LIBRARIES for module in modules[ours[-1] + 1 :]) if ours else False


def _explain_status(status: int, message: str, repo: str) -> UserError:
    if status == 401:
        return NotOnHub("the Hub refuses the token", fix=f"{_LOG_IN} with a valid one", exit_code=FAILED)
    if status == 403:
        return _failed(f"the token gives no right to do this with {repo}", "use one that may write there")
    if status in TRANSIENT_STATUSES:
        what = f"the Hub keeps answering {status} about {repo}: it is overloaded or limits requests"
        return NotOnHub(what, exit_code=FAILED)
    return _failed(f"the Hub answered {status} about {repo}{f': {message}' if message else ''}")


def _failed(what: str, fix: str = "") -> UserError:
    return UserError(what, fix=fix, exit_code=FAILED)


def is_repo_id(name: str) -> bool:
    """Whether `name` can be a dataset id of the Hub rather than a path: `owner/name`, or an old id of one word.

    >>> [is_repo_id(name) for name in ("owner/name", "squad", "./corpus", "texts/corpus.txt", "a/b/c", "corpus.txt")]
    [True, True, False, False, False, False]
    """
    suffix = r"\.(txt|jsonl?|csv|parquet|arrow|gz|xz|bz2|zst|zip|tar)$"
    return bool(re.fullmatch(r"(\w[\w.-]*/)?\w[\w.-]*", name)) and not re.search(suffix, name)


def parse_repo_id(name: str) -> tuple[str, str | None]:
    """The repository and the revision of `REPO[@REVISION]`.

    >>> parse_repo_id("owner/name@v1.0"), parse_repo_id("owner/name")
    (('owner/name', 'v1.0'), ('owner/name', None))
    """
    repo, _, revision = name.partition("@")
    return repo, revision or None


def require_listing(info: Any, repo: str) -> None:
    """Raises UserError if a description of a repository by the Hub names no commit or has files without names."""
    files = info.siblings or []
    if not (isinstance(info.sha, str) and re.fullmatch("[0-9a-f]{40}", info.sha)):
        raise _failed(f"what the Hub answers about {repo} names no commit")
    if not all(isinstance(file.rfilename, str) for file in files):
        raise _failed(f"what the Hub answers about {repo} has files without names")


def require_token() -> None:
    """Raises UserError if `huggingface_hub` finds no token. One that it finds may still be refused."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError("no Hub token is set", fix=_LOG_IN, exit_code=FAILED)


def username() -> str:
    """The account that the token belongs to."""
    from huggingface_hub import HfApi

    with hub_errors("the account of the token"):
        require_token()
        answer = retry(HfApi().whoami)
        name = answer.get("name") if isinstance(answer, dict) else None
        if not isinstance(name, str):
            raise _failed("the Hub does not tell the name of the account", "give --repo or --hf-username")
        return name


def resolve_repo(name: str, *, repo: str | None, owner: str | None, retry_command: str) -> str:
    """The repository of a push: `repo`, else `name` at `owner` or at the account of the token.

    Raises UserError (exit code 1), naming `retry_command`, if no token is set or it is refused.
    """
    known = repo or (f"{owner}/{name}" if owner else "")
    with hub_errors(known or "the account of the token", retry_command=retry_command):
        require_token()
        return known or f"{username()}/{name}"
