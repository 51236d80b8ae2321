"""How a command looks at the fleet: through a router that the fleet does not count as a worker."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from router.cli import look
from router.config import Config, load_file
from router.router import VOCABULARY, Router

__all__ = [
    "DEFAULT_FILE",
    "AsJson",
    "File",
    "Onlooker",
    "connected",
    "filled",
    "loaded",
    "looking",
    "where",
]


def filled(text: str) -> str:
    """Words that name something. A script's variable that is not set must not become a call that
    goes elsewhere than was meant."""
    if not text.strip():
        raise typer.BadParameter("it is empty")
    return text


DEFAULT_FILE = "deployments.yaml"
File = Annotated[
    str,
    typer.Option(
        "--config", metavar="FILE", envvar="ROUTER_CONFIG", parser=filled, help="The YAML file."
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]


@dataclass(frozen=True)
class Onlooker:
    """A router to look and to order with, its configuration, and where the state is."""

    router: Router
    config: Config
    where: str


def loaded(file: str) -> Config:
    return load_file(file, environ=os.environ, vocabulary=VOCABULARY)


def where(config: Config) -> str:
    """Where the state is, for people: no user and no password."""
    from router.state import connecting  # redis-py is heavy, and other commands need none

    url = config.settings.redis_url
    assert url is not None
    return f"{connecting.shown(url.get_secret_value())}, namespace {config.settings.namespace}"


@contextmanager
def connected(config: Config) -> Iterator[Any]:
    """A client of the configured Redis; it connects at its first use."""
    from router.state import connecting

    url = config.settings.redis_url
    assert url is not None
    client = connecting.connect(url.get_secret_value())
    try:
        yield client
    finally:
        client.close()


@contextmanager
def looking(file: str) -> Iterator[Onlooker]:
    """Onto the fleet of a file; without a `redis_url` there is nothing that one could see."""
    # What is to be told, the commands tell.
    logging.getLogger("router").addHandler(logging.NullHandler())
    config = loaded(file)
    if config.settings.redis_url is None:
        raise look.CommandError(
            f"{file} sets no redis_url: state stays in each worker process, and from here there is "
            "nothing to see and nobody to tell"
        )
    with (
        connected(config) as client,
        Router.from_yaml(file, redis=client, onlooker=True) as router,
    ):
        yield Onlooker(router, config, where(config))
