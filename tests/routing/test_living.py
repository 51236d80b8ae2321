"""A router in a process: loops, threads, forks, and what it closes and leaves open."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
import yaml
from routing_parts import CLIP, Doors, fleet, in_process, native_of, written

import router as package
from router import ConfigError, Router, sdk
from router.testing import StandIn

KEYS = {"sk-east": "east", "sk-west": "west"}


@pytest.fixture
def server() -> Iterator[StandIn]:
    with StandIn(accounts=KEYS, seed=7) as provider:
        yield provider


# Closing


def test_a_router_is_a_context_manager(server: StandIn) -> None:
    with Router.from_dict(fleet(server.base_url), environ={}) as router:
        ours = router.video_generation(prompt="x").id
    # Closed connections are opened anew: a closed router still serves.
    assert router.video_status(ours).done
    router.close()


def test_a_router_is_an_async_context_manager(server: StandIn) -> None:
    async def story() -> bool:
        async with Router.from_dict(fleet(server.base_url), environ={}) as router:
            ours = (await router.avideo_generation(prompt="x")).id
            router.video_status(ours)
        done = (await router.avideo_status(ours)).done
        await router.aclose()
        return done

    assert asyncio.run(story())


def test_the_context_is_left_on_errors_too(server: StandIn) -> None:
    def story() -> None:
        with Router.from_dict(fleet(server.base_url), environ={}) as router:
            router.video_generation(prompt="x")
            raise LookupError("the caller's")

    with pytest.raises(LookupError, match="the caller's"):
        story()


def test_the_callers_clients_stay_open(call: Doors, provider: StandIn) -> None:
    client = httpx.Client(transport=provider.transport)
    async_client = httpx.AsyncClient(transport=provider.transport)
    router = Router.from_dict(
        fleet("http://stand-in/v1"), environ={}, http_client=client, async_http_client=async_client
    )
    assert call(router, "video_generation", prompt="x").id
    call.close(router)
    assert not client.is_closed
    assert not async_client.is_closed
    assert call(router, "video_generation", prompt="x").id
    client.close()
    asyncio.run(async_client.aclose())


def test_a_callers_client_brings_its_own_headers_and_no_redirects(
    call: Doors, provider: StandIn
) -> None:
    client = httpx.Client(transport=provider.transport, follow_redirects=True)
    async_client = httpx.AsyncClient(transport=provider.transport, follow_redirects=True)
    router = Router.from_dict(
        fleet("http://stand-in/v1", "east") | {"settings": {"retries": 0}},
        environ={},
        http_client=client,
        async_http_client=async_client,
    )
    provider.fault("redirect", location="http://elsewhere/v1/videos")
    with pytest.raises(package.RouterError):
        call(router, "video_list")
    assert len(provider.requests) == 1
    client.close()
    asyncio.run(async_client.aclose())


# Loops, threads, forks


def test_one_router_serves_one_loop_after_another(server: StandIn) -> None:
    router = Router.from_dict(fleet(server.base_url), environ={})
    made = [asyncio.run(router.avideo_generation(prompt="x")).id for _ in range(3)]
    for ours in made:
        assert asyncio.run(router.avideo_status(ours)).done
    gc.collect()  # a connection that a loop left open would warn here
    router.close()


def test_two_loops_at_once(server: StandIn) -> None:
    router = Router.from_dict(fleet(server.base_url), environ={})

    async def several() -> list[str]:
        made = await asyncio.gather(*(router.avideo_generation(prompt="x") for _ in range(8)))
        looked = await asyncio.gather(*(router.avideo_status(video.id) for video in made))
        return [video.id for video in looked if video.done]

    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(asyncio.run, several()) for _ in range(2)]
    ids = [ours for future in running for ours in future.result()]
    assert len(set(ids)) == 16
    router.close()


def test_the_blocking_door_works_inside_a_running_loop(server: StandIn) -> None:
    async def story() -> tuple[str, str]:
        with Router.from_dict(fleet(server.base_url), environ={}) as router:
            character = router.video_create_character(name="Luna", video=CLIP, replicate="all")
            video = router.video_generation(prompt="Luna", characters=[character])
            router.video_wait(video.id)
            assert router.video_content(video.id) == CLIP
            return router.video_list().data[0].id, video.id

    listed, made = asyncio.run(story())
    assert listed == made


def test_thirty_two_threads_at_once(server: StandIn) -> None:
    router = Router.from_dict(fleet(server.base_url), environ={})
    start = threading.Barrier(32)

    def story(number: int) -> tuple[str, bool]:
        start.wait()
        video = router.video_generation(prompt=f"heron {number}")
        looked = router.video_status(video.id)
        return looked.prompt or "", bytes(router.video_content(video.id)) == CLIP

    with ThreadPoolExecutor(32) as pool:
        told = list(pool.map(story, range(32)))
    assert [prompt for prompt, _ in told] == [f"heron {n}" for n in range(32)]
    assert all(whole for _, whole in told)
    assert len(server.accepted) == 32
    assert all(known["in_flight"] == 0 for known in router.statistics().values())
    router.close()


def test_threads_and_reloads_at_once(provider: StandIn, tmp_path: Path) -> None:
    path = written(tmp_path / "deployments.yaml", fleet("http://stand-in/v1"))
    router = Router.from_yaml(path, environ={}, http_client=provider.transport)
    stop = threading.Event()

    def reloading() -> int:
        times = 0
        while not stop.is_set():
            router.reload()
            times += 1
        return times

    def calling(_: int) -> list[str]:
        made = [router.video_generation(prompt="x").id for _ in range(10)]
        return [router.video_status(ours).id for ours in made]

    with ThreadPoolExecutor(9) as pool:
        reloads = pool.submit(reloading)
        looked = list(pool.map(calling, range(8)))
        stop.set()
    assert reloads.result() > 1
    assert len({ours for ids in looked for ours in ids}) == 80
    assert {request.status for request in provider.requests} == {200}


FORKING = """
    import asyncio, json, os, sys
    from router import Router

    router = Router.from_dict(json.loads(sys.argv[1]), environ={})
    before = router.video_generation(prompt="parent").id

    async def both(prompt):
        return (await router.avideo_generation(prompt=prompt)).id

    asyncio.run(both("parent, async"))
    child = os.fork()
    if child == 0:
        code = 1
        try:
            assert router.video_status(before).done
            router.video_generation(prompt="child")
            asyncio.run(both("child, async"))
            code = 0
        finally:
            os._exit(code)
    for number in range(5):
        assert router.video_status(before).done
        router.video_generation(prompt="parent")
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) == 0, status
    assert router.video_status(before).done
    router.close()
"""


def python(code: str, *arguments: str, **environ: str) -> str:
    """Run in a fresh interpreter in which warnings are errors; what it printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(code), *arguments],
        capture_output=True,
        text=True,
        timeout=50,
        env={**os.environ, **environ},
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_uses_connections_of_its_own(server: StandIn) -> None:
    python(FORKING, json.dumps(fleet(server.base_url)))
    # Answers that met the wrong reader would have failed; and nothing was sent twice.
    prompts = sorted(str(submit.prompt) for submit in server.accepted)
    assert prompts == sorted(["parent", "parent, async", "child", "child, async", *["parent"] * 5])
    assert {request.status for request in server.requests} == {200}


# Module functions


@pytest.fixture
def default(monkeypatch: pytest.MonkeyPatch, provider: StandIn) -> Router:
    """The process's router, for this test one in process."""
    router: Router = in_process(provider)
    monkeypatch.setattr(sdk, "_router", router)
    return router


def test_every_operation_is_a_function_too() -> None:
    names = [
        name
        for name in vars(Router)
        if name.startswith(("video", "avideo"))
        or name in ("locate", "alocate", "resume", "aresume")
    ]
    assert len(names) == 28
    for name in names:
        assert getattr(package, name) is getattr(sdk, name)
        assert name in package.__all__
        assert getattr(sdk, name).__doc__


def test_functions_run_on_the_default_router(default: Router, provider: StandIn) -> None:
    ours = package.video_generation(prompt="x").id
    assert asyncio.run(package.avideo_status(ours)).id == ours
    assert package.video_content(ours) == CLIP
    assert asyncio.run(package.alocate(native_of(default, ours))) == ours
    assert sdk.default_router() is default
    assert package.video_delete(ours).deleted


def test_the_default_router_is_loaded_once_from_router_config(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: StandIn
) -> None:
    path = written(tmp_path / "elsewhere.yaml", fleet(server.base_url))
    monkeypatch.setattr(sdk, "_router", None)
    monkeypatch.setenv("ROUTER_CONFIG", str(path))
    ours = package.video_generation(prompt="x").id
    path.unlink()
    assert package.video_status(ours).done
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(lambda _: sdk.default_router(), range(8)))) == 1
    sdk.default_router().close()


def test_without_router_config_it_is_deployments_yaml(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, server: StandIn
) -> None:
    written(tmp_path / "deployments.yaml", fleet(server.base_url))
    monkeypatch.setattr(sdk, "_router", None)
    monkeypatch.delenv("ROUTER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    assert package.video_generation(prompt="x").id
    sdk.default_router().close()


def test_without_any_file_a_function_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sdk, "_router", None)
    monkeypatch.delenv("ROUTER_CONFIG", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match=r"deployments\.yaml"):
        package.video_generation(prompt="x")
    # It is asked again, since the file may have come by now.
    (tmp_path / "deployments.yaml").write_text(yaml.safe_dump(fleet("http://127.0.0.1:1/v1")))
    assert sdk.default_router()


def test_an_import_reads_no_file_and_no_environment() -> None:
    python("import router; assert router.sdk._router is None", ROUTER_CONFIG="/no/such/file")


# The announcement


@pytest.mark.parametrize("face", ["functions", "methods"])
def test_the_announcements_example_runs_as_written(
    default: Router, provider: StandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, face: str
) -> None:
    router = default if face == "methods" else package
    monkeypatch.chdir(tmp_path)
    (tmp_path / "luna.mp4").write_bytes(CLIP)

    async def announcement() -> list[str]:
        with open("luna.mp4", "rb") as clip:  # noqa: ASYNC230  (as announced)
            character = await router.avideo_create_character(
                name="Luna",
                video=clip,
                custom_llm_provider="openai",
                model="sora-2",
            )
        video = await router.avideo(
            model="sora-2",
            prompt="Luna waves from a red train",
            characters=[{"id": character.id}],
            seconds="8",
        )
        luna = await router.avideo_get_character(
            character_id=character.id, custom_llm_provider="openai"
        )
        await router.avideo_wait(video.id)
        edited = await router.avideo_edit(video_id=video.id, prompt="Make it dusk")
        extended = await router.avideo_extension(
            video_id=video.id, prompt="The train leaves", seconds="8"
        )
        assert luna.id == character.id
        assert luna.name == "Luna"
        assert edited.remixed_from_video_id == extended.remixed_from_video_id == video.id
        return [character.id, video.id, edited.id, extended.id]

    ids = asyncio.run(announcement())
    assert len(set(ids)) == 4
    owners = {default.describe_id(one).copies[0].account for one in ids}
    assert len(owners) == 1
    assert [submit.operation for submit in provider.accepted] == [
        "create_character",
        "generation",
        "edit",
        "extension",
    ]
