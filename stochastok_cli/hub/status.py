"""Whether the Hub can be used: where it is, whether it answers, and whose token is set. The token is never shown."""

import os
import re
from dataclasses import dataclass

from stochastok_cli.errors import one_line


@dataclass(frozen=True)
class HubStatus:
    """The Hub as this machine sees it.

    Attributes:
        endpoint: Its address (HF_ENDPOINT), without a name, a password and a query in it.
        offline: Whether HF_HUB_OFFLINE is set; then no request is sent.
        reachable: Whether it answers; None where nobody asked.
        token: Whether a token is set.
        user: The account of the token; None without one, and where the Hub does not tell.
        problem: What is wrong, or "".
    """

    endpoint: str
    offline: bool
    reachable: bool | None
    token: bool
    user: str | None
    problem: str


def hub_status(timeout: float = 5.0) -> HubStatus:
    """Asks the Hub once whose token is set, which it answers without a token, too, and never raises.

    Args:
        timeout: In seconds, of connecting and of the answer.
    """
    from huggingface_hub import constants, get_token

    endpoint = address_without_secrets(constants.ENDPOINT)
    try:
        has_token = get_token() is not None
    except (OSError, ValueError) as error:  # HF_HOME is a file, the token's file can't be read or is no text
        variable = "HF_TOKEN_PATH" if os.environ.get("HF_TOKEN_PATH") else "HF_HOME"
        reason = error.strerror if isinstance(error, OSError) else "it is no text"
        problem = f"the file of the token, {constants.HF_TOKEN_PATH}, can't be read ({reason}): check {variable}"
        return HubStatus(endpoint, bool(constants.HF_HUB_OFFLINE), None, False, None, problem)
    if constants.HF_HUB_OFFLINE:
        return HubStatus(endpoint, True, None, has_token, None, "")
    if not re.match(r"(?i)https?://[^/]", endpoint):
        problem = f"HF_ENDPOINT is no address that begins with https:// or http:// ({endpoint})"
        return HubStatus(endpoint, False, False, has_token, None, problem)
    try:
        reachable, user, problem = _ask(timeout, has_token)
    except Exception as error:  # an HTTP library's; its message may hold the header with the token
        reachable, user, problem = False, None, f"the Hub can't be reached ({type(error).__name__})"
    return HubStatus(endpoint, False, reachable, has_token, user, problem)


def address_without_secrets(url: str) -> str:
    """An address without what may be secret: a name and a password, the query and the fragment.

    >>> address_without_secrets("https://me:secret@hub.example:1/x?token=abc")
    'https://hub.example:1/x'
    """
    before_path, slashes, rest = re.split(r"[?#]", url, maxsplit=1)[0].rpartition("//")
    host, slash, path = rest.partition("/")
    return f"{before_path}{slashes}{host.rpartition('@')[2]}{slash}{path}"


def _ask(timeout: float, has_token: bool) -> tuple[bool, str | None, str]:
    """Whether the Hub answers, the account of the token, and what is wrong."""
    from huggingface_hub import constants
    from huggingface_hub.utils import build_hf_headers, get_session

    url = f"{constants.ENDPOINT}/api/whoami-v2"
    answer = get_session().get(url, headers=build_hf_headers(), timeout=timeout)
    status = answer.status_code
    if status in (401, 403):
        return True, None, "the Hub refuses the token" if has_token else ""
    if status == 429:
        return True, None, "the Hub limits the requests from here"
    if status != 200:
        return False, None, f"the Hub, or what stands in its place, answers {status}"
    try:
        name = answer.json().get("name")
    except Exception:
        name = None
    if not isinstance(name, str):
        return False, None, "what answers is not the Hub"
    return True, one_line(name), ""
