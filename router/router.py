"""The face of the component: `Router`.

Each operation is one description (in `operations`) behind two doors, paired here in one line: `x`
blocks, `ax` awaits. All else is in the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import inspect
import logging
import math
import os
import random
import weakref
from collections.abc import Awaitable, Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import (
    IO,
    Any,
    Concatenate,
    ParamSpec,
    Self,
    TypedDict,
    TypeVar,
    Unpack,
    overload,
)

import httpx

from router import _logs, operations
from router._doors import AsyncDoor, BlockingDoor, SharedTime, SystemClock, step
from router.advising import Advising
from router.balancing import STRATEGIES
from router.claiming import Claiming
from router.config import Config, ProviderFacts, Vocabulary, load_data, load_file, retirement
from router.downloads import download
from router.engine import Engine
from router.errors import BadRequestError, CapacityError, ConfigError, StateUnavailableError
from router.events import OnEvent
from router.fleet import Fleet, Member
from router.inspection import (
    Explanation,
    Hold,
    IdDescription,
    Overview,
    described,
    explained,
    holds,
    known_of,
    locate,
    observe,
    overview,
    probe,
    release,
    spent_by,
)
from router.learning import Learning
from router.leases import Job, Need
from router.leasing import Leasing
from router.listing import list_videos
from router.once import once
from router.operations import Call, Options, Upload
from router.picking import Picking
from router.providers import PROVIDERS
from router.replicas import create_character
from router.resuming import resume
from router.retiring import Retiring
from router.state import STORES, Keeper, News, Sharing, Store
from router.transport import AsyncTransport, BlockingTransport
from router.trip import Side
from router.types import Answer, AsyncWritable, Character, Clock, Content, Operation, Video
from router.waiting import wait

__all__ = ["VOCABULARY", "Router"]

log = logging.getLogger("router")

# Drained without an end: until somebody restores it.
DRAIN_SECONDS = 10 * 365 * 86400.0
MEETING_SECONDS = 0.1

P = ParamSpec("P")
T = TypeVar("T")
AnswerT = TypeVar("AnswerT", bound=Answer)

VOCABULARY = Vocabulary(
    providers={
        name: ProviderFacts(provider.operations, provider.dialect)
        for name, provider in PROVIDERS.items()
    },
    strategies=tuple(STRATEGIES),
)


class Parts(TypedDict, total=False):
    """What a router is put together from, besides its configuration; see `Router`."""

    http_client: httpx.Client | httpx.BaseTransport | None
    async_http_client: httpx.AsyncClient | httpx.AsyncBaseTransport | None
    redis: object
    on_event: OnEvent | None
    clock: Clock | None
    rng: random.Random | None
    store: Store | None
    onlooker: bool


async def _run(engine: Engine, call: Call[T], side: Side) -> T:
    return await engine.run(call, side)


async def _submit(engine: Engine, call: Call[AnswerT], side: Side) -> AnswerT:
    return await once(engine, call, side, _sent)


async def _sent(engine: Engine, call: Call[T], side: Side, upload: Upload | None) -> T:
    return await engine.run(call, side, upload=upload)


async def _create(engine: Engine, call: Call[Character], side: Side) -> Character:
    return await once(engine, call, side, create_character)


def _pair(
    name: str,
    describe: Callable[P, Call[T]],
    run: Callable[[Engine, Call[T], Side], Awaitable[T]] = _run,
) -> tuple[
    Callable[Concatenate[Router, P], T],
    Callable[Concatenate[Router, P], Coroutine[Any, Any, T]],
]:
    """The blocking and the async method of one description."""

    async def core(engine: Engine, side: Side, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return await run(engine, describe(*args, **kwargs), side)

    return _doors(name, core, describe.__doc__)


def _doors(
    name: str, core: Callable[Concatenate[Engine, Side, P], Awaitable[T]], doc: str | None
) -> tuple[
    Callable[Concatenate[Router, P], T],
    Callable[Concatenate[Router, P], Coroutine[Any, Any, T]],
]:
    def blocking(self: Router, /, *args: P.args, **kwargs: P.kwargs) -> T:
        return step(_awaited(core(self._engine, self._blocking, *args, **kwargs)))

    async def asynchronous(self: Router, /, *args: P.args, **kwargs: P.kwargs) -> T:
        called = core(self._engine, self._async, *args, **kwargs)
        del args, kwargs  # they are not to be held for as long as a job is followed
        return await called

    for method, named in ((blocking, name), (asynchronous, f"a{name}")):
        method.__name__, method.__qualname__ = named, f"Router.{named}"
    blocking.__doc__ = doc
    asynchronous.__doc__ = f"The async twin of `{name}`.\n\n{doc or ''}"
    return blocking, asynchronous


async def _awaited(awaitable: Awaitable[T]) -> T:
    return await awaitable


class Router:
    """Chooses a deployment for each video call, sends the call, and follows the job.

    Build one per process from YAML (`from_yaml`) or data, and share it: it is safe under threads,
    tasks and forks. Use it as a context manager, or call `close`/`aclose`, to close connections.

    `http_client` and `async_http_client` are an httpx client or transport of the caller's, used
    as they are and not closed. `on_event` is called with each value of `router.events`. `environ`
    replaces the process's environment; `clock` and `rng` make time and chance the caller's;
    `store` is where routers of one process meet. An `onlooker` is an operator's: it looks and
    orders, the fleet does not count it as a worker, and it meets the others when it is told to
    (by `share` or `overview`), in no thread of its own.
    """

    def __init__(
        self,
        *,
        deployments: Sequence[Mapping[str, Any]] | None = None,
        accounts: Mapping[str, Any] | None = None,
        settings: Mapping[str, Any] | None = None,
        environ: Mapping[str, str] | None = None,
        **parts: Unpack[Parts],
    ) -> None:
        written = {"settings": settings, "accounts": accounts, "deployments": deployments}
        data = {key: value for key, value in written.items() if value is not None}
        self._start(functools.partial(_from_data, data, environ), **parts)

    @classmethod
    def from_yaml(
        cls,
        path: str | os.PathLike[str],
        *,
        environ: Mapping[str, str] | None = None,
        **parts: Unpack[Parts],
    ) -> Self:
        """A router from a YAML file, which `reload` reads again.

        Raises `ConfigError` with every problem found, each with its file, line and key.
        """
        self = cls.__new__(cls)
        self._start(functools.partial(_from_file, path, environ), **parts)
        return self

    @classmethod
    def from_dict(
        cls,
        data: Mapping[str, Any],
        *,
        environ: Mapping[str, str] | None = None,
        **parts: Unpack[Parts],
    ) -> Self:
        """A router from data in the shape of the YAML."""
        self = cls.__new__(cls)
        self._start(functools.partial(_from_data, data, environ), **parts)
        return self

    def _start(
        self,
        load: Callable[[], Config],
        *,
        http_client: httpx.Client | httpx.BaseTransport | None = None,
        async_http_client: httpx.AsyncClient | httpx.AsyncBaseTransport | None = None,
        redis: object = None,
        on_event: OnEvent | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
        store: Store | None = None,
        onlooker: bool = False,
    ) -> None:
        _check_client("http_client", http_client, httpx.Client, httpx.BaseTransport)
        _check_client(
            "async_http_client", async_http_client, httpx.AsyncClient, httpx.AsyncBaseTransport
        )
        _check_hook(on_event)
        self._load = load
        self._clock = clock or SystemClock()
        self._rng, self._own_rng = rng or random.Random(), rng is None
        self._now = SharedTime(self._clock)
        self._onlooker = onlooker
        fleet = Fleet(self._loaded())
        self._keeper: Keeper | None = None
        sharing = self._sharing(fleet.config, redis, store, onlooker=onlooker)
        self._learning = Learning(self._now, self._rng, on_event)
        self._learning.sharing = sharing
        leasing = Leasing(sharing, self._now)
        self._learning.on_job = leasing.order
        self._engine = Engine(
            fleet,
            self._learning,
            clock=self._clock,
            now=self._now,
            rng=self._rng,
            leasing=leasing,
            claiming=Claiming(sharing, self._now),
            advising=Advising(sharing),
        )
        self._retiring = Retiring(self._clock.time, self._learning)
        if not onlooker:
            self._retiring.begin(fleet)
            self._engine.on_call = self._called
        self._sending = BlockingTransport(self._clock.monotonic, http_client)
        self._asending = AsyncTransport(self._clock.monotonic, async_http_client)
        self._blocking = Side(BlockingDoor(self._clock), self._sending)
        self._async = Side(AsyncDoor(self._clock), self._asending)
        _routers.add(self)

    def _sharing(
        self, config: Config, client: object, store: Store | None, *, onlooker: bool
    ) -> Sharing | None:
        """How this worker shares: through a store of the caller's, through Redis, or not at all."""
        if store is not None:
            return Sharing(store, self._absorb, inline=True, onlooker=onlooker)
        url = config.settings.redis_url
        if client is None and url is None:
            return None
        where, own = "the given client", None
        if client is None and url is not None:
            from router.state import connecting  # redis-py is heavy, and most imports need none

            where = connecting.shown(url.get_secret_value())
            client = own = connecting.connect(url.get_secret_value())
        shared = STORES["redis"](client, config.settings.namespace)
        sharing = Sharing(shared, self._absorb, inline=onlooker, onlooker=onlooker)
        sharing.overhear = self._overhear
        self._keeper = Keeper(sharing, where, own)
        return sharing

    def __repr__(self) -> str:
        engine: Engine | None = getattr(self, "_engine", None)
        if engine is None:  # a refused configuration; tracebacks with locals ask all the same
            return "<Router without a configuration>"
        return f"<Router {len(engine.fleet.members)} deployments from {engine.fleet.config.source}>"

    @property
    def config(self) -> Config:
        """The configuration in force; after `reload` it is another one."""
        return self._engine.fleet.config

    # Operations, each behind both doors ---------------------------------------------------------

    video_create_character, avideo_create_character = _pair(
        "video_create_character", operations.create_character, _create
    )
    video_get_character, avideo_get_character = _pair(
        "video_get_character", operations.get_character
    )
    video_generation, avideo_generation = _pair("video_generation", operations.generation, _submit)
    video_edit, avideo_edit = _pair("video_edit", operations.edit, _submit)
    video_extension, avideo_extension = _pair("video_extension", operations.extension, _submit)
    video_remix, avideo_remix = _pair("video_remix", operations.remix, _submit)
    video_status, avideo_status = _pair("video_status", operations.status)
    video_list, avideo_list = _pair("video_list", operations.listing, list_videos)
    video_delete, avideo_delete = _pair("video_delete", operations.delete)
    video_wait, avideo_wait = _doors("video_wait", wait, wait.__doc__)
    resume, aresume = _doors("resume", resume, resume.__doc__)
    locate, alocate = _doors("locate", locate, locate.__doc__)
    probe, aprobe = _doors("probe", probe, probe.__doc__)
    video, avideo = video_generation, avideo_generation

    @overload
    def video_content(
        self,
        video_id: str | Video,
        *,
        variant: str = "video",
        to: None = None,
        **options: Unpack[Options],
    ) -> Content: ...
    @overload
    def video_content(
        self,
        video_id: str | Video,
        *,
        variant: str = "video",
        to: str | os.PathLike[str] | IO[bytes],
        **options: Unpack[Options],
    ) -> Path: ...
    def video_content(self, video_id: str | Video, **arguments: Any) -> Content | Path:
        """Download a finished video, or its `thumbnail` or `spritesheet` (`variant`).

        Returns the bytes, as a `Content`. With `to`, a path (which appears only when the file is
        complete) or a writable file, nothing is held in memory and the path is returned. Raises
        `VideoNotReadyError` while the job runs and `VideoExpiredError` after it was dropped.
        """
        call = operations.content(video_id, **arguments)
        return step(download(self._engine, call, self._blocking))

    @overload
    async def avideo_content(
        self,
        video_id: str | Video,
        *,
        variant: str = "video",
        to: None = None,
        **options: Unpack[Options],
    ) -> Content: ...
    @overload
    async def avideo_content(
        self,
        video_id: str | Video,
        *,
        variant: str = "video",
        to: str | os.PathLike[str] | IO[bytes] | AsyncWritable,
        **options: Unpack[Options],
    ) -> Path: ...
    async def avideo_content(self, video_id: str | Video, **arguments: Any) -> Content | Path:
        """The async twin of `video_content`. `to` may have a `write` that is awaited, too."""
        call = operations.content(video_id, **arguments)
        return await download(self._engine, call, self._async)

    # Routing without sending --------------------------------------------------------------------

    def pick(self, operation: Operation | str, **named: Any) -> Picking:
        """Choose a deployment for a call that you send yourself; a context manager.

        Takes what routing depends on: `model`, `target_model_names`, `video_id`, `character_id`,
        `characters`, `seconds`, `size`, `input_reference`, `video`, `variant`, and the options of
        every call. Files are not opened: they only say that there is one.
        """
        return Picking(self._engine, operations.routing_only(operation, **named), self._blocking)

    def apick(self, operation: Operation | str, **named: Any) -> Picking:
        """The async twin of `pick`: `async with router.apick(…) as attempt`."""
        return Picking(self._engine, operations.routing_only(operation, **named), self._async)

    def explain(self, operation: Operation | str = "generation", **arguments: Any) -> Explanation:
        """Who would serve a call with these arguments now, and why the others would not.

        Nothing is sent and nothing is learned. A follow-up that names no id is explained as if
        each account might own what it is about. Raises `UnknownModelError` and errors of ids; where
        nobody may serve the call, the verdicts say why.
        """
        return explained(self._engine, operation, arguments)

    async def aadmit(self, caller: str, rpm: int) -> None:
        """Count a request of a caller of the application's; raises `CapacityError` beyond `rpm`.

        In any 60 seconds, over all workers; while shared state is out of reach, each worker's
        share of it.
        """
        self._engine.on_call()
        need = Need(f"rpm:caller:{caller}", rpm)
        later = await self._engine.leasing.admit(self._async, need)
        if later is not None:
            raise CapacityError(
                f"{caller} may make {rpm} requests a minute",
                retry_after=max(later, 0.1),
                code="rate_limit_exceeded",
            )

    def observe(self, video_id: str, status: str | Video | Mapping[str, Any]) -> None:
        """Take in what a webhook, or a poll of your own, saw of a job: its status or the video."""
        observe(self._engine, self._blocking, video_id, status)

    # Looking in ---------------------------------------------------------------------------------

    def statistics(self) -> dict[str, Any]:
        """What this worker knows of each deployment: plain values, fit for JSON."""
        now = self._engine.now()
        return {
            member.deployment.id: {
                "account": member.deployment.account,
                "model_names": list(member.deployment.model_names),
                "provider": member.deployment.provider,
                **known_of(member, now),
                **spent_by(member, self._learning.spending, now),
            }
            for member in self._engine.fleet.members.values()
        }

    def describe_id(self, text: str) -> IdDescription:
        """What one of our ids says. Raises `InvalidIdError` for an id that is not ours."""
        return described(self._engine, text)

    def reload(self) -> None:
        """Read the configuration again and swap it in, all or nothing.

        Calls under way keep the old one; a broken file changes nothing and raises `ConfigError`.
        What was learned is kept by deployment id; a new key lifts the ejection of its account.
        """
        self._engine.fleet = Fleet(self._loaded(), before=self._engine.fleet)
        if not self._onlooker:
            self._retiring.begin(self._engine.fleet)

    def share(self) -> None:
        """One turn of sharing with the other workers; nothing without a store.

        With Redis this happens by itself; here is the turn for those who bring a store. Raises
        `StateUnavailableError` where the store does not answer.
        """
        if self._learning.sharing is None:
            return
        try:
            self._learning.sharing.step()
        except OSError as exc:
            raise StateUnavailableError(f"the shared state is out of reach: {exc}") from exc

    def drain(self, deployment: str, seconds: float = DRAIN_SECONDS) -> None:
        """Take a deployment out of rotation for new work, in the whole fleet, for `seconds`.

        What it owns it still serves. `restore` brings it back. `seconds` are ten years at most,
        which is also what they are where nobody says. Raises `ConfigError` for an id that is not
        configured, and `BadRequestError` for what is no time.
        """
        number = isinstance(seconds, int | float) and not isinstance(seconds, bool)
        if not number or not 0 < seconds < math.inf:
            raise BadRequestError("a drain takes a positive number of seconds, or none for no end")
        self._meet()
        self._learning.drain(self._member(deployment), min(seconds, DRAIN_SECONDS))

    def restore(self, deployment: str) -> None:
        """Bring a deployment back into rotation, in the whole fleet, whatever keeps it out.

        Only who retires stays out for new work: that takes another `retires_on`, and a reload.
        """
        self._meet()
        self._learning.restore(self._member(deployment))

    @property
    def out_of_reach(self) -> str | None:
        """Why the workers' shared state does not answer; `None` while it does, or there is none.

        From memory: as of the last exchange. Calls go on meanwhile with what this worker knows.
        """
        sharing = self._learning.sharing
        return None if sharing is None else sharing.away

    def jobs(self) -> list[Job]:
        """What was accepted in the last day: by whom, when, and how it was seen last.

        Of the whole fleet where there is a Redis, and newest first. Raises
        `StateUnavailableError` where it does not answer.
        """
        try:
            return self._engine.leasing.picture(()).jobs
        except OSError as exc:
            raise StateUnavailableError(f"the shared state is out of reach: {exc}") from exc

    def overview(self) -> Overview:
        """What the whole fleet is doing: deployments, accounts, jobs, slots, workers, changes.

        It asks the store, and so blocks. Raises `StateUnavailableError` where that is out of reach.
        """
        return overview(self._engine)

    def holds(self, text: str) -> tuple[Hold, ...]:
        """The slots of running jobs that a job (an id) or a token holds."""
        return holds(self._engine, text)

    def release(self, text: str) -> tuple[Hold, ...]:
        """Give back the slots that a job (an id) or a token holds; returns them.

        For jobs that have ended without anybody seeing it, and for submits whose answer was lost.
        """
        return release(self._engine, text)

    def _loaded(self) -> Config:
        """The configuration as it reads now.

        In a worker's log stands who retires soon, and what of a LiteLLM file is not taken.
        """
        config, now = self._load(), self._clock.time()
        if config.dropped and not self._onlooker:
            log.warning("%s", config.dropped, extra=_logs.fields("not-taken"))
        for one in config.deployments if not self._onlooker else ():
            if told := retirement(one, now):
                extra = _logs.fields("retires", deployment=one.id, account=one.account)
                log.warning("%s %s", one.id, told, extra=extra)
        return config

    def _meet(self) -> None:
        """Begin to share; a moment for the first turn, which tells what time it is for all.

        What an operator decides is weighed by its time against what workers decided.
        """
        self._engine.on_call()
        sharing = self._learning.sharing
        if sharing is None or sharing.met.is_set():
            return
        if sharing.inline:
            with contextlib.suppress(OSError):
                sharing.step()
        else:
            sharing.met.wait(MEETING_SECONDS)

    def _member(self, deployment: str) -> Member:
        members = self._engine.fleet.members
        if deployment not in members:
            raise ConfigError(f"no deployment {deployment!r}; there are {', '.join(members)}")
        return members[deployment]

    def _called(self) -> None:
        """A call begins."""
        self._retiring.look()
        if self._keeper is not None:
            # Not before, so that who only imports or forks has no thread.
            self._keeper.start()

    def _absorb(self, news: News) -> None:
        self._now.set(news.now)
        self._engine.leasing.absorb(news)
        self._learning.absorb(self._engine.fleet, news)
        self._engine.advising.absorb(news)
        self._retiring.look()

    def _overhear(self, news: News) -> None:
        self._learning.absorb(self._engine.fleet, news)

    def _after_fork(self) -> None:
        if self._keeper is not None:
            self._keeper.after_fork()
        self._engine.after_fork()
        self._retiring.after_fork()
        self._sending.after_fork()
        self._asending.after_fork()
        if self._own_rng:
            self._rng.seed()

    # Ending -------------------------------------------------------------------------------------

    def close(self) -> None:
        """Close the blocking door's connections; the async door's close with their event loop.

        What this worker has not told the others yet it tells them before.
        """
        self._sending.close()
        if self._keeper is not None:
            self._keeper.stop()

    async def aclose(self) -> None:
        """Close the connections of both doors, the async one's for the running loop."""
        self._sending.close()
        if self._keeper is not None:
            await asyncio.to_thread(self._keeper.stop)
        await self._asending.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()


def _from_file(path: str | os.PathLike[str], environ: Mapping[str, str] | None) -> Config:
    given = os.environ if environ is None else environ
    return load_file(path, environ=given, vocabulary=VOCABULARY)


def _from_data(data: Mapping[str, Any], environ: Mapping[str, str] | None) -> Config:
    given = os.environ if environ is None else environ
    return load_data(data, environ=given, vocabulary=VOCABULARY)


def _check_client(name: str, given: object, *kinds: type) -> None:
    if given is not None and not isinstance(given, kinds):
        allowed = " or ".join(f"httpx.{kind.__name__}" for kind in kinds)
        raise ConfigError(f"`{name}` is an {allowed}, not {type(given).__name__}")


def _check_hook(given: object) -> None:
    if given is None:
        return
    if not callable(given):
        raise ConfigError(f"`on_event` is a function of one event, not {type(given).__name__}")
    if any(map(inspect.iscoroutinefunction, (given, type(given).__call__))):
        raise ConfigError("`on_event` is called and never awaited: give it a plain function")


_routers: weakref.WeakSet[Router] = weakref.WeakSet()


def _after_fork() -> None:
    for router in list(_routers):
        router._after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
