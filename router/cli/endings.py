"""How a command ends: its exit code, and the one line that says what to do now.

The router's errors speak to programmers, and here is somebody at a shell: what an error knows is
said in the words of the commands, with the command that goes on from it.
"""

from __future__ import annotations

import errno
import os
import shlex
import time
from collections.abc import Callable
from dataclasses import dataclass

from router.cli import look
from router.cli.onlooker import DEFAULT_FILE
from router.config import Config
from router.errors import (
    AttemptTimeoutError,
    AuthenticationError,
    ConfigError,
    ConnectError,
    DeadlineExceededError,
    InternalServerError,
    InvalidIdError,
    InvalidResponseError,
    JobFailedError,
    NotFoundError,
    PermissionDeniedError,
    RouterError,
    StateUnavailableError,
    TryLaterError,
    VideoNotReadyError,
    WaitTimeoutError,
)
from router.types import Operation

__all__ = [
    "AMBIGUOUS",
    "EXIT_CODES",
    "FAILED",
    "FINE",
    "INTERRUPTED",
    "LATER",
    "USAGE",
    "Shell",
    "code_of",
    "happened",
    "look_for_it",
    "words_of",
    "words_of_system",
]

FINE, FAILED, USAGE, LATER, AMBIGUOUS, INTERRUPTED = 0, 1, 2, 3, 4, 130

EXIT_CODES = (
    "**Exit codes:** 0 all is well, 1 problems were found or a call failed, 2 wrong usage, 3 try "
    "later (it says when), 4 ambiguous: a job may be running, 130 interrupted."
)


@dataclass(frozen=True)
class Shell:
    """Commands as one may type them next: those of this configuration file."""

    file: str

    def command(self, *words: str) -> str:
        found_by_itself = self.file == (os.environ.get("ROUTER_CONFIG") or DEFAULT_FILE)
        named = () if found_by_itself else ("--config", self.file)
        return f"`{shlex.join([look.PROGRAM, *words, *named])}`"


def code_of(error: RouterError) -> int:
    """The exit code that an error amounts to."""
    if error.accepted == "maybe":
        return AMBIGUOUS
    later = isinstance(error, (TryLaterError, WaitTimeoutError))
    return LATER if later or getattr(error, "retry_after", None) else FAILED


def words_of(error: RouterError, shell: Shell, config: Config | None) -> str:
    """What happened and what to do, in one line; `config` is `None` where it is what is wrong."""
    if isinstance(error, ConfigError):
        return _of_config(error, shell)
    if isinstance(error, JobFailedError):
        said = ": ".join(part for part in (error.code, _said(error)) if part)
        return f"there is no video: {said} ({error.video_id})"
    what = happened(error)
    advice = _advice(error, shell, config)
    return f"{what}; {advice}" if advice else what


def happened(error: RouterError) -> str:
    """What an error says, without advice, and without a full stop: more follows in the line."""
    said = _said(error).removesuffix(".")
    return f"{said} [{error.deployment}]" if error.deployment else said


# What the messages call by its name in Python.
_IN_SHELL = {
    ": a job may be running; router.resume(error) looks for it": "",
    "a job may be running; ": "",
    ": a job may be running": "",
    "`account=`": "--account",
    "or find it with `locate`": "or find it with `video-router ids locate`",
    "(`locate` finds": "(`video-router ids locate` finds",
    "max_cost=": "--max-cost ",
    "`seconds`": "--seconds",
    "`after`": "--after",
}


def _said(error: RouterError) -> str:
    said = error.message
    for python, words in _IN_SHELL.items():
        said = said.replace(python, words)
    return said


def _of_config(error: ConfigError, shell: Shell) -> str:
    if len(error.problems) > 1:
        found = look.plural(len(error.problems), "problem")
        check = f"`{shlex.join([look.PROGRAM, 'check', shell.file])}`"
        return f"{error.problems[0]}; this is the first of {found}, which {check} lists"
    if error.message.endswith("there is no such file"):
        return f"{error.message}; name another with --config, or write it (see the README)"
    return _said(error)


def words_of_system(error: OSError) -> str:
    """What the operating system refused, and what to do where that is known."""
    what = ": ".join(str(part) for part in (error.filename, error.strerror or error) if part)
    advice = _SYSTEM.get(error.errno or 0)
    return f"{what}; {advice}" if advice else what


_SYSTEM = {
    errno.ENOSPC: "make room there, or name a file on another disk",
    errno.EDQUOT: "make room there, or name a file on another disk",
    errno.EROFS: "name a file in a folder that may be written to",
    errno.EACCES: "name a file in a folder that may be written to",
}


def _advice(error: RouterError, shell: Shell, config: Config | None) -> str | None:
    if error.accepted == "maybe":
        seek = look_for_it(error.account, error.operation, shell, config, _sent_at(error))
        answered = error.status is not None and error.status < 300
        return f"{_of_no_answer(error)}; {seek}" if answered else seek
    if error.accepted == "yes" and error.video_id is not None:
        return f"it was accepted; follow it: {shell.command('wait', error.video_id)}"
    later = getattr(error, "retry_after", None)
    if later is not None:
        or_wait = isinstance(error, VideoNotReadyError)
        other = f", or wait for it with {shell.command('wait', 'ID')}" if or_wait else ""
        return f"try again in {look.lasting(max(later, 1.0))}{other}"
    return next(
        (say(error, shell) for kind, say in _ADVICE.items() if isinstance(error, kind)), None
    )


def _sent_at(error: RouterError) -> float | None:
    at: float | None = getattr(error, "sent_at", None)
    return at


_ADVICE: dict[type[RouterError], Callable[[RouterError, Shell], str | None]] = {
    ConnectError: lambda error, shell: (
        f"is it up, and its base_url right? {shell.command('doctor')} asks all of them"
    ),
    AuthenticationError: lambda error, shell: (
        f"check the api_key of the account {error.account} in {shell.file}"
    ),
    PermissionDeniedError: lambda error, shell: (
        f"check what the key of the account {error.account} may do"
    ),
    NotFoundError: lambda error, shell: _of_missing(error, shell),
    DeadlineExceededError: lambda error, shell: "a longer --deadline gives it more time",
    AttemptTimeoutError: lambda error, shell: "a longer --timeout gives it more time",
    InvalidResponseError: lambda error, shell: _of_no_answer(error),
    InternalServerError: lambda error, shell: (
        "the provider cannot do this: ask another with --account or --model"
        if error.status == _NOT_IMPLEMENTED
        else "the provider failed: try again, or ask another with --account"
    ),
    InvalidIdError: lambda error, shell: _of_id(error, shell),
    StateUnavailableError: lambda error, shell: f"{shell.command('doctor')} says why",
}


def _of_no_answer(error: RouterError) -> str:
    """An answer that is not one comes from a page, from elsewhere, or from who broke off."""
    if error.status is None:
        return "its answer broke off: try again"
    if error.status >= 300:
        return "its base_url leads elsewhere: write the whole address, with https and its path"
    return f"its base_url probably leads to a page, and not to an API {_END}"


_END = "(is /v1 missing at its end?)"
_NOT_IMPLEMENTED = 501
# Nothing that exists is named in them.
_AT_LARGE = (Operation.GENERATION, Operation.CREATE_CHARACTER, Operation.LIST)


def _of_missing(error: RouterError, shell: Shell) -> str:
    if error.operation in _AT_LARGE:
        return f"check its base_url {_END}, and that the provider knows its model"
    return f"what there is: {shell.command('list')}"


def _of_id(error: RouterError, shell: Shell) -> str | None:
    if not error.message.startswith("the id "):
        return None  # the message itself says what to name
    return f"give it whole, as it was told; what there is: {shell.command('list')}"


def look_for_it(
    account: str | None,
    operation: str | None,
    shell: Shell,
    config: Config | None,
    sent_at: float | None = None,
) -> str:
    """What to do where something may have been started, and nobody knows its id."""
    when = f" around {time.strftime('%H:%M:%S', time.localtime(sent_at))}" if sent_at else ""
    what = "a character" if operation == Operation.CREATE_CHARACTER else "a job"
    maybe = f"{what} may be there, in the account {account}" if account else f"{what} may be there"
    if operation == Operation.CREATE_CHARACTER:
        return f"{maybe}; made again, there would be two"
    if account is None or not _lists(account, config):
        return f"{maybe}: do not submit it again before you have looked at the provider{when}"
    listed, go_on = shell.command("list", "--account", account), shell.command("wait", "ID")
    return (
        f"{maybe}: do not submit it again, look for it with {listed}{when}, and follow it with "
        f"{go_on}"
    )


def _lists(account: str, config: Config | None) -> bool:
    """Whether the account's videos can be listed."""
    deployments = config.deployments if config is not None else ()
    return any(one.account == account and Operation.LIST in one.operations for one in deployments)
