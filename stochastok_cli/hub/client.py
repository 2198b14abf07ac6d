"""Talking to the Hub: one place where the libraries are kept quiet, requests repeated and failures explained."""

import json
import logging
import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from stochastok_cli.errors import FAILED, UserError

WAITS = (1, 2, 4, 8, 8)  # seconds between attempts, as `huggingface_hub` waits
PASSING = (408, 429, 500, 502, 503, 504)  # statuses that `huggingface_hub` takes to pass
TRANSPORTS = ("httpx", "httpx2", "httpcore", "requests", "urllib3", "aiohttp")  # the clients' versions differ in these
_LOG_IN = "set HF_TOKEN or run `hf auth login`"
Result = TypeVar("Result")


@contextmanager
def hub_errors(
    repo: str, revision: str | None = None, *, retry_command: str = "", or_cache: bool = False
) -> Iterator[None]:
    """One conversation with the Hub about a repository: the libraries are quiet and their errors explained.

    With `or_cache`, offline mode is not an error in itself.
    """
    from huggingface_hub import constants, errors
    from huggingface_hub.utils import disable_progress_bars
    from huggingface_hub.utils import logging as its_logging  # which sets the level when it is imported

    disable_progress_bars()  # the terminal shows our own
    logging.getLogger(its_logging.__name__.split(".")[0]).setLevel(logging.CRITICAL)  # it tells of each failed attempt
    try:
        if constants.HF_HUB_OFFLINE and not or_cache:
            raise errors.OfflineModeIsEnabled
        yield
    except Exception as error:
        explained = error if isinstance(error, UserError) else _explained(error, repo, revision)
        if explained is None:
            raise
        if retry_command and explained.exit_code == FAILED:
            explained = UserError(
                f"the push failed: {explained}", fix=f"to try again: {retry_command}", exit_code=FAILED
            )
        if explained is error:
            raise
        raise explained from error


def import_datasets() -> Any:
    """The library `datasets`, imported and kept quiet."""
    import datasets

    datasets.disable_progress_bars()
    logging.getLogger("datasets").setLevel(logging.CRITICAL)
    return datasets


def retry(call: Callable[[], Result]) -> Result:
    """`call()`, repeated while the Hub is overloaded: for the requests that `huggingface_hub` makes only once."""
    for wait in WAITS:
        try:
            return call()
        except Exception as error:
            delay = _passing(error)
            if delay is None:
                raise
            time.sleep(max(wait, delay))
    return call()


def none_if_unreachable(call: Callable[[], Result]) -> Result | None:
    """`call()`, or None where there is no Hub to answer it; an error that the Hub answers is raised."""
    try:
        return call()
    except Exception as error:
        if _response(error) is not None or not any(map(_is_transport, _chain(error))):
            raise
        return None


def _passing(error: Exception) -> float | None:
    """For an error that may pass, the seconds that the Hub asks to wait (0 if it doesn't say); else None."""
    response = _response(error)
    if response is None:
        # A gateway's page of HTML where the client expects JSON, or a connection that broke. A server that can't be
        # connected to at all is no reason to let a person wait.
        broken = any(_is_transport(link) and "Connect" not in type(link).__name__ for link in _chain(error))
        return 0 if broken or isinstance(error, json.JSONDecodeError) else None
    if response.status_code not in PASSING:
        return None
    seconds = re.search(r"\bt=(\d+)", response.headers.get("ratelimit", "")) if response.status_code == 429 else None
    after = seconds[1] if seconds else response.headers.get("retry-after", "")
    return float(after) if after.isdigit() else 0


def _chain(error: BaseException) -> list[Any]:
    """The error and what it came from, outermost first."""
    chain = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None:
        chain.append(cause)
    return chain


def _response(error: Exception) -> Any:
    """The Hub's answer that an error is about, or None."""
    return next((link.response for link in _chain(error) if getattr(link, "response", None) is not None), None)


def _is_transport(error: BaseException) -> bool:
    return type(error).__module__.split(".")[0] in TRANSPORTS


def _explained(error: Exception, repo: str, revision: str | None) -> UserError | None:
    """What a failure of the libraries means to the user, in one line; None if it is not about the Hub."""
    from huggingface_hub import constants, errors, get_token

    chain = _chain(error)

    def caught(*kinds: type[BaseException]) -> Any:
        return next((link for link in chain if isinstance(link, kinds)), None)

    def failed(what: str, fix: str = "") -> UserError:
        return UserError(what, fix=fix, exit_code=FAILED)

    if caught(errors.HFValidationError):
        return UserError(f"{repo!r} is not a name of a repository on the Hub", fix="expected OWNER/NAME")
    if caught(errors.LocalTokenNotFoundError):
        return failed("no Hub token is set", _LOG_IN)
    library = next((link for link in chain if type(link).__module__.startswith(("datasets.", "pyarrow."))), None)
    if caught(errors.GatedRepoError) or "is a gated dataset" in str(library):  # `datasets` drops what it was told
        return failed(f"access to {repo} must be asked for", f"see {constants.ENDPOINT}/datasets/{repo}")
    if caught(errors.RepositoryNotFoundError):
        why = "this token does not open it" if get_token() else "no token is set"
        return UserError(f"no repository {repo} is found on the Hub: it does not exist, or it is private and {why}")
    if caught(errors.RevisionNotFoundError):
        return UserError(f"{repo} on the Hub has no revision {revision!r}")
    if http := caught(errors.HfHubHTTPError):
        status, message = http.response.status_code, (http.server_message or "").splitlines()
        if status == 401:
            return failed("the Hub refuses the token", f"{_LOG_IN} with a valid one")
        if status == 403:
            return failed(f"the token gives no right to do this with {repo}", "use one that may write there")
        if status in PASSING:
            return failed(f"the Hub keeps answering {status} about {repo}: it is overloaded or limits requests")
        return failed(f"the Hub answered {status} about {repo}{f': {message[0]}' if message else ''}")
    if constants.HF_HUB_OFFLINE and caught(errors.OfflineModeIsEnabled, ConnectionError):
        return failed(f"{repo} is on the Hub, and offline mode is on", "unset HF_HUB_OFFLINE")
    if caught(ConnectionError, TimeoutError, errors.LocalEntryNotFoundError) or any(map(_is_transport, chain)):
        return failed(f"the Hub can't be reached about {repo}", "check the network connection")
    if library:
        return failed(f"{repo} on the Hub can't be read: {(str(library) or type(library).__name__).splitlines()[0]}")
    return None


def require_token() -> None:
    """Raises UserError if no token is found in the usual places (it may still turn out to be refused)."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise UserError("no Hub token is set", fix=_LOG_IN, exit_code=FAILED)


def username() -> str:
    """The account that the token belongs to."""
    from huggingface_hub import HfApi

    with hub_errors("the account of the token"):
        require_token()
        return retry(HfApi().whoami)["name"]


def resolve_repo(name: str, *, repo: str | None, owner: str | None, retry_command: str) -> str:
    """Where a push goes: `repo`, else `name` at `owner` or at the account of the token.

    Raises UserError (exit code 1) that names the command to try `again` if no token is set, or it is refused.
    """
    known = repo or (f"{owner}/{name}" if owner else "")
    with hub_errors(known or "the account of the token", retry_command=retry_command):
        require_token()
        return known or f"{username()}/{name}"
