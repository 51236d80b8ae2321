"""`video-router serve`: the router as an OpenAI-compatible server, for every language."""

from __future__ import annotations

import errno
import json
import logging
import os
import socket
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from router import _logs
from router.cli import look
from router.cli.endings import FAILED, USAGE
from router.cli.onlooker import DEFAULT_FILE, File, where
from router.config import Config

if TYPE_CHECKING:
    from router.proxy.serving import Plan

__all__ = ["serve"]

# What the extra brings, by the names under which it is imported.
_EXTRA = frozenset(
    {"starlette", "uvicorn", "h11", "httptools", "python_multipart", "prometheus_client"}
)
_ADVICE = {
    errno.EADDRINUSE: "name another --port (0 takes a free one), or end what listens there",
    errno.EACCES: "name a --port above 1023 (0 takes a free one)",
}


def serve(
    config: File = DEFAULT_FILE,
    host: Annotated[
        str,
        typer.Option(metavar="HOST", help="Where to listen; beyond this machine it takes keys."),
    ] = "127.0.0.1",
    port: Annotated[
        int, typer.Option(metavar="PORT", min=0, max=65535, help="0 takes a free one.")
    ] = 4000,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, max=64, help="Processes that share the port.")
    ] = 1,
    grace: Annotated[
        float,
        typer.Option(
            metavar="S", min=0, help="Seconds for what is under way when the end is asked for."
        ),
    ] = 25.0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say and log in lines of JSON, for programs.")
    ] = False,
) -> None:
    """Serve an OpenAI-compatible video API over the deployments, until Ctrl-C.

    Who may call says the section `proxy` of the file; `video-router keys new` makes a key. SIGHUP,
    or a change of the file, takes it into force anew.
    """
    try:
        from router.proxy import serving
    except ModuleNotFoundError as missing:
        name = (missing.name or "").partition(".")[0]
        if name not in _EXTRA:
            raise
        said = f"serve needs an extra ({name}): pip install 'video-router[proxy]'"
        raise look.CommandError(said, USAGE) from None
    plan = serving.Plan(config, host, workers, grace)
    if workers > 1 and not hasattr(os, "fork"):
        raise typer.BadParameter("this system has no fork: 1 is all", param_hint="--workers")
    loaded = plan.loaded()
    listening = _bound(host, port, serving)
    _log(as_json)
    try:
        serving.serve(plan, listening, lambda: _announce(plan, loaded, listening, as_json))
    except serving.StartError as error:
        raise look.CommandError(str(error), FAILED) from error


def _bound(host: str, port: int, serving: Any) -> socket.socket:
    try:
        found: socket.socket = serving.bound(host, port)
    except OSError as error:
        advice = _ADVICE.get(error.errno or 0, "name another with --host")
        said = f"cannot listen on {host}:{port}: {error.strerror or error}; {advice}"
        raise look.CommandError(said, FAILED) from error
    return found


# What is said at the start ----------------------------------------------------------------------


def _announce(plan: Plan, config: Config, listening: socket.socket, as_json: bool) -> None:
    address, port = listening.getsockname()[:2]
    shown = f"[{address}]" if ":" in address else address
    url = f"http://{shown}:{port}/v1"
    shared = where(config) if config.settings.redis_url is not None else None
    warned = _warnings(plan, config)
    keys = [key.name for key in config.proxy.keys]
    if as_json:
        facts = {
            "serving": url,
            "pid": os.getpid(),
            "workers": plan.workers,
            "config": plan.file,
            "deployments": len(config.deployments),
            "groups": list(config.groups),
            "keys": keys,
            "shared": shared,
            "warnings": warned,
        }
        look.say(json.dumps(facts, ensure_ascii=False))
        return
    out = look.stdout()
    # One line whatever the width: programs wait for it, and read the address from it.
    hint = "; Ctrl-C ends it" if out.is_interactive else ""
    out.print(f"serving at {url}{hint}", soft_wrap=True, markup=False)
    lines = {
        "models": ", ".join(config.groups),
        "by": f"{look.plural(len(config.deployments), 'deployment')} of {plan.file}",
        "for": ", ".join(keys) or "everybody on this machine, without a key",
        "state": shared or "in this process" + (" alone, of each worker" * (plan.workers > 1)),
        "page": f"{url.removesuffix('v1')}",
    }
    for name, told in lines.items():
        out.print(f"  {name:<7} {told}", soft_wrap=True, markup=False)
    for warning in warned:
        look.warn(warning)
    sys.stdout.flush()


def _warnings(plan: Plan, config: Config) -> list[str]:
    found = []
    if config.proxy.keys and not config.settings.id_secrets:
        found.append(
            "keys share all ids: without settings.id_secrets whoever holds an id may use it; "
            "write a secret, and each key has its own"
        )
    if plan.workers > 1 and config.settings.redis_url is None:
        found.append(
            f"{plan.workers} workers share nothing without settings.redis_url: each learns for "
            "itself, and each grants all of every limit"
        )
    return found


# The log ----------------------------------------------------------------------------------------


class _Lines(logging.Formatter):
    """A line of JSON for each record, with the fields that are known."""

    def format(self, record: logging.LogRecord) -> str:
        told = {name: getattr(record, name, None) for name in _logs.FIELDS}
        known = {name: value for name, value in told.items() if value not in (None, ())}
        at = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line = {
            "at": f"{at}.{record.msecs:03.0f}Z",
            "level": record.levelname,
            "message": record.getMessage(),
            **known,
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _log(as_json: bool) -> None:
    """All of the log goes to stderr in one look; there is no line for each call.

    What clients do to a server is no warning of an operator's: they send what is no HTTP.
    """
    handler = logging.StreamHandler()
    words = logging.Formatter("%(asctime)s %(levelname)s %(message)s")
    handler.setFormatter(_Lines() if as_json else words)
    logging.getLogger().addHandler(handler)
    logging.captureWarnings(capture=True)
    levels = {"router": logging.INFO, "uvicorn": logging.ERROR, "python_multipart": logging.ERROR}
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)
