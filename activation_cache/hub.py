"""The Hugging Face hub: whether it can be reached, and what its libraries' errors mean to a user."""

import functools
import os
import socket
import sys
from collections.abc import Iterable
from urllib.parse import urlsplit

from activation_cache.errors import UserError, nearest

PROXIES = ("HTTPS_PROXY", "https_proxy", "HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy")
SECONDS_TO_ANSWER = 5.0


@functools.cache
def look_for_hub() -> None:
    """Where the hub does not answer, tell its libraries, for this process, to use only what was downloaded before.

    They would otherwise retry every single file for half a minute, whether it is on disk or not.
    """
    from huggingface_hub import constants

    if constants.HF_HUB_OFFLINE or any(os.environ.get(name) for name in PROXIES):
        return
    place = urlsplit(constants.ENDPOINT)
    port = place.port or (80 if place.scheme == "http" else 443)
    try:
        socket.create_connection((place.hostname or "", port), timeout=SECONDS_TO_ANSWER).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True
        if "datasets" in sys.modules:  # it keeps a copy of its own, taken when it is imported
            sys.modules["datasets"].config.HF_HUB_OFFLINE = True


def hub_error(what: str, name: str, error: Exception, known: Iterable[str] = ()) -> UserError:
    """One line for whatever the hub's libraries raised: there is no such thing, or no way to it."""
    kinds = {kind.__name__ for e in _chain(error) for kind in type(e).__mro__}
    text = " ".join(str(error).split())
    offline = {"LocalEntryNotFoundError", "OfflineModeIsEnabled", "ConnectError", "ConnectionError", "Timeout",
               "TimeoutException", "gaierror", "NetworkError"}
    if "GatedRepoError" in kinds:
        return UserError(f"the {what} {name} is gated: accept its licence on the hub and log in with `hf auth login`")
    if kinds & offline or "offline" in text.lower() or "couldn't connect" in text.lower():
        return UserError(
            f"the {what} {name} is neither a local folder nor downloaded before, and the hub could not be reached: "
            "connect to the network (or unset HF_HUB_OFFLINE), or give a local path"
        )
    absent = {"RepositoryNotFoundError", "DatasetNotFoundError", "RevisionNotFoundError"}
    if kinds & absent or "is not a valid model identifier" in text:
        return UserError(f"the hub has no {what} {name!r}, and there is no such folder. {nearest(name, known)}".strip())
    return UserError(f"the {what} {name} could not be loaded: {text[:300] or type(error).__name__}")


def _chain(error: BaseException | None) -> list[BaseException]:
    """The error with everything that led to it."""
    found: list[BaseException] = []
    while error is not None and error not in found:
        found.append(error)
        error = error.__cause__ or error.__context__
    return found
