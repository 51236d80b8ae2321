"""What a Redis's URL may say, and how one that is wrong is told where it was written."""

from __future__ import annotations

from pathlib import Path

import pytest

from router import redis_url
from router.config import load_file
from router.errors import ConfigError
from router.router import VOCABULARY

SECRET = "hunter2"
FILE = """\
deployments:
- {id: a, model_name: m, account: a, base_url: "https://h"}
settings:
  retries: 1
  redis_url: "${URL}"
"""


@pytest.mark.parametrize(
    ("url", "kind", "hosts", "service", "database"),
    [
        ("redis+sentinel://a:1,b/main/3", "sentinel", (("a", 1), ("b", 26379)), "main", 3),
        ("rediss+sentinel://[::1]/my%2Fmain", "sentinel", (("::1", 26379),), "my/main", 0),
        ("redis+cluster://a,b:7000/", "cluster", (("a", 6379), ("b", 7000)), "", 0),
    ],
)
def test_sentinels_and_nodes_are_hosts(
    url: str, kind: str, hosts: tuple[tuple[str, int], ...], service: str, database: int
) -> None:
    found = redis_url.parse(url)
    assert (found.kind, found.hosts) == (kind, hosts)
    assert (found.service, found.database) == (service, database)


@pytest.mark.parametrize(
    ("url", "options"),
    [
        ("redis://", {}),
        (
            "valkey://u:p%2Fw@h:7/2",
            {"username": "u", "password": "p/w", "host": "h", "port": 7, "db": 2},
        ),
        ("unix://u:p@/run/r?db=1", {"username": "u", "password": "p", "path": "/run/r", "db": 1}),
        ("redis://h?socket_timeout=3", {"host": "h", "socket_timeout": 3.0}),
        (
            "redis+sentinel://:p@a/m?sentinel_password=q",
            {"password": "p", "sentinel_password": "q"},
        ),
        ("redis+cluster://u:p@a,b?db=0", {"username": "u", "password": "p", "db": 0}),
    ],
)
def test_a_single_server_and_what_all_are_asked_with_are_options(
    url: str, options: dict[str, object]
) -> None:
    found = redis_url.parse(url).options()
    assert {key: v for key, v in found.items() if key != "connection_class"} == options


def test_a_password_is_in_no_repr() -> None:
    assert SECRET not in repr(redis_url.parse(f"redis://u:{SECRET}@h"))


@pytest.mark.parametrize(
    ("url", "says"),
    [
        (f"http://:{SECRET}@host", "rediss://"),
        (f"redis:{SECRET}@host", "rediss://"),
        (f"redis+sentinell://:{SECRET}@host/m", "redis+sentinel://"),
        (f"unix+cluster://:{SECRET}@host", "redis+cluster://"),
        (f"redis://:{SECRET}@host:123456/0", "port"),
        (f"redis://:{SECRET}@host:x/0", "port"),
        (f"redis://user:{SECRET}/x@host:6379/0", "percent-encoded"),
        (f"redis://user:12?{SECRET}@host:6379/0", "percent-encoded"),
        (f"redis://user:12#{SECRET}@host:6379/0", "percent-encoded"),
        (f"redis://:{SECRET}@[::1", "cannot be read"),
        (f"redis://:[{SECRET}@host", "percent-encoded"),
        (f"redis://:{SECRET}@host/prod", "number"),
        (f"redis://:{SECRET}@one,two/0", "redis+sentinel://"),
        (f"redis://host?pasword={SECRET}", "none: pasword"),
        (f"redis://host?{SECRET}=1", "options that redis-py takes"),
        (f"redis://host?socket_timeout={SECRET}", "values of the kind"),
        (f"unix://:{SECRET}@", "socket"),
        (f"unix://user:{SECRET}/x@/tmp/s", "socket"),
        (f"redis+sentinel://:{SECRET}@host:26379", "service"),
        (f"redis+sentinel://:{SECRET}@host:26379/mymaster/x", "number"),
        (f"redis+sentinel://:{SECRET}@/mymaster", "host"),
        (f"redis+sentinel://host/m?sentinel_pasword={SECRET}", "none: pasword"),
        (f"redis+cluster://:{SECRET}@host,,other", "host"),
        (f"redis+cluster://:{SECRET}@host:6379/1", "no numbered databases"),
        (f"redis+cluster://:{SECRET}@host:6379/?db=1", "no numbered databases"),
        (f"redis+cluster://:{SECRET}@host:6379?nonsense=1", "none: nonsense"),
    ],
)
def test_a_wrong_url_is_told_with_its_line_and_without_its_password(
    tmp_path: Path, url: str, says: str
) -> None:
    file = tmp_path / "deployments.yaml"
    file.write_text(FILE)

    with pytest.raises(ConfigError) as caught:
        load_file(file, environ={"URL": url}, vocabulary=VOCABULARY)

    (problem,) = caught.value.problems
    assert problem.startswith(f"{file}:5: settings.redis_url: ")
    assert says in problem
    cause: BaseException | None = caught.value
    while cause is not None:
        assert SECRET not in f"{cause!r} {cause}"
        cause = cause.__cause__ if cause.__suppress_context__ else cause.__context__
