"""Characters in several accounts: one clip, read once, one id that holds all copies."""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import pytest
from routing_parts import CLIP, THREE, Doors, FakeClock, deployment, fleet, picks, serving

from router import BadRequestError, NoDeploymentAvailableError, Router, RouterError
from router.ids import Copy, IdCodec, Kind
from router.testing import StandIn

NINE = [f"a{n}" for n in range(9)]


def three(provider: StandIn, **parts: Any) -> Router:
    return serving(provider, *[deployment(f"{account}-1") for account in THREE], **parts)


def luna(call: Doors, router: Router, video: Any = CLIP, **more: Any) -> Any:
    return call(router, "video_create_character", name="Luna", video=video, **more)


# How many


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_n_copies_go_to_n_distinct_accounts(call: Doors, provider: StandIn, copies: int) -> None:
    router = three(provider)
    made = luna(call, router, replicate=copies)
    accounts = [copy.account for copy in router.describe_id(made.id).copies]
    assert len(set(accounts)) == copies
    assert sorted(picks(provider.requests)) == sorted(accounts)
    assert {submit.account for submit in provider.accepted} == set(accounts)
    assert made.routing.failures == {}
    assert made.routing.warnings == ()
    assert made.name == "Luna"


def test_all_is_every_account(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    made = luna(call, router, replicate="all")
    assert {copy.account for copy in router.describe_id(made.id).copies} == set(THREE)
    assert set(made.routing.copies) == set(THREE)
    assert made.routing.warnings == ()  # all were asked for, and all were asked


def test_all_is_at_most_eight(call: Doors) -> None:
    provider = StandIn(accounts={f"sk-{name}": name for name in NINE}, seed=7)
    router = serving(provider, *[deployment(f"{name}-1") for name in NINE])
    made = luna(call, router, replicate="all")
    assert len(router.describe_id(made.id).copies) == 8
    assert len(provider.accepted) == 8


def test_an_account_gets_one_copy_however_many_deployments_it_has(
    call: Doors, provider: StandIn
) -> None:
    router = serving(
        provider, deployment("east-1"), deployment("east-2"), deployment("west-1"), settings={}
    )
    made = luna(call, router, replicate=2)
    assert sorted(picks(provider.requests)) == ["east", "west"]
    assert len(router.describe_id(made.id).copies) == 2


def test_more_copies_than_accounts_are_as_many_as_there_are_and_a_warning(
    call: Doors, provider: StandIn
) -> None:
    router = three(provider)
    made = luna(call, router, replicate=5)
    assert len(router.describe_id(made.id).copies) == 3
    assert len(provider.accepted) == 3
    (warning,) = made.routing.warnings
    assert "3" in warning
    assert "5" in warning


@pytest.mark.parametrize("replicate", [0, -1, 9, 1.5, True, "some", None, "3"])
def test_other_numbers_are_refused(call: Doors, provider: StandIn, replicate: Any) -> None:
    with pytest.raises(BadRequestError) as caught:
        luna(call, three(provider), replicate=replicate)
    assert caught.value.status is None
    assert provider.requests == []


def test_copies_stay_within_the_named_groups_and_in_rotation(
    call: Doors, provider: StandIn
) -> None:
    router = serving(
        provider,
        deployment("east-1"),
        deployment("west-1", weight=0),
        deployment("north-1", model_name="other"),
    )
    made = luna(call, router, model="sora-2", replicate=3)
    assert [copy.account for copy in router.describe_id(made.id).copies] == ["east"]
    assert picks(provider.requests) == ["east"]


# Partial success


@pytest.mark.parametrize(
    ("kind", "details"),
    [
        ("status", {"status": 400}),
        ("status", {"status": 401}),
        ("status", {"status": 429}),
        ("status", {"status": 500}),
        ("reset", {"after": False}),
        ("reset", {"after": True}),
        ("garbage", {}),
        ("empty", {}),
    ],
)
def test_partial_success_returns_the_character_and_says_what_failed(
    call: Doors, provider: StandIn, kind: str, details: dict[str, Any]
) -> None:
    router = three(provider)
    provider.fault(kind, account="west", times=None, **details)
    made = luna(call, router, replicate=3)
    assert {copy.account for copy in router.describe_id(made.id).copies} == {"east", "north"}
    assert set(made.routing.failures) == {"west"}
    assert made.routing.failures["west"]
    assert set(made.routing.copies) == {"east", "north"}
    # A copy is a submit of its own: at most once, and never in an account that has one already.
    assert sorted(picks(provider.requests)).count("west") == 1
    assert len(provider.requests) == 3


def test_all_failed_raises_the_last(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    provider.fault("status", status=400, times=None)
    with pytest.raises(BadRequestError) as caught:
        luna(call, router, replicate=3)
    assert caught.value.status == 400
    assert len(provider.requests) == 3
    assert provider.accepted == []


def test_nobody_in_rotation_is_told_before_anything_is_sent(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    router = three(provider, clock=clock)
    provider.fault("status", status=429, headers={"retry-after": "60"}, times=3)
    with pytest.raises(RouterError):
        luna(call, router)
    sent = len(provider.requests)
    with pytest.raises(NoDeploymentAvailableError) as caught:
        luna(call, router, replicate=2)
    assert len(provider.requests) == sent
    assert set(caught.value.reasons) == {"east-1", "west-1", "north-1"}
    assert 0 < caught.value.retry_after <= 60


# Use


def test_a_generation_with_it_goes_to_any_holder(call: Doors, provider: StandIn) -> None:
    router = three(provider)
    made = luna(call, router, replicate="all")
    natives = dict(router.describe_id(made.id).copies)
    served = set()
    for _ in range(30):
        video = call(router, "video_generation", prompt="Luna waves", characters=[made])
        request = provider.requests[-1]
        assert request.fields["characters"] == [{"id": natives[video.routing.account]}]
        served.add(video.routing.account)
    assert served == set(THREE)


@pytest.mark.parametrize(
    ("kind", "details"),
    [("status", {"status": 401}), ("status", {"status": 429}), ("reset", {"after": False})],
)
@pytest.mark.parametrize("down", THREE)
def test_it_works_while_an_account_is_down(
    call: Doors, provider: StandIn, down: str, kind: str, details: dict[str, Any]
) -> None:
    router = three(provider)
    made = luna(call, router, replicate="all")
    provider.fault(kind, account=down, times=None, **details)
    for _ in range(10):
        video = call(router, "video_generation", prompt="Luna waves", characters=[{"id": made.id}])
        assert video.routing.account != down
        assert call(router, "video_get_character", made.id).id == made.id


def test_it_works_after_an_account_left_the_configuration(call: Doors, provider: StandIn) -> None:
    made = luna(call, three(provider), replicate="all")
    fewer = serving(provider, deployment("west-9"))
    video = call(fewer, "video_generation", prompt="Luna waves", characters=[made.id])
    assert video.routing.account == "west"
    assert call(fewer, "video_get_character", made.id).id == made.id


@pytest.mark.parametrize("secrets", [(), ("a secret",)], ids=["unsigned", "signed"])
def test_the_id_of_eight_copies_is_within_its_bounds(call: Doors, secrets: tuple[str, ...]) -> None:
    # `char_` and 32 digits are 37 characters, which leaves the account 19 of the 56.
    names = [f"account-{n}".ljust(19, "x") for n in range(8)]
    provider = StandIn(accounts={f"sk-{name}": name for name in names}, seed=7)
    told = [deployment(f"d-{name}", name) for name in names]
    router = serving(provider, *told, settings={"id_secrets": list(secrets)})
    for copies in range(1, 9):
        made = luna(call, router, replicate=copies)
        assert len(router.describe_id(made.id).copies) == copies
        assert len(made.id) <= 160 + 80 * (copies - 1)
        assert made.id == IdCodec(secrets).encode(
            Kind.CHARACTER, [Copy(*copy) for copy in router.describe_id(made.id).copies]
        )


# The clip


class Trickle(io.RawIOBase):
    """A stream that is read once, forwards: no seek, no descriptor, no name."""

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.reads = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        self.reads += 1
        return self._data.read(min(size, 4096) if size > 0 else size)


class Upload:
    """An object like FastAPI's UploadFile: its `read` is awaited."""

    filename = "folder/luna.mp4"
    content_type = "video/mp4"

    def __init__(self, data: bytes) -> None:
        self._data = io.BytesIO(data)
        self.bytes_read = 0
        self.closed = False

    async def read(self, size: int = -1, /) -> bytes:
        chunk = self._data.read(size)
        self.bytes_read += len(chunk)
        return chunk

    async def close(self) -> None:
        self.closed = True


def _on_disk(data: bytes) -> IO[bytes]:
    file = tempfile.TemporaryFile()  # noqa: SIM115  (the test closes it)
    file.write(data)
    return file


def _spooled(data: bytes) -> IO[bytes]:
    file = tempfile.SpooledTemporaryFile(max_size=1 << 30)  # noqa: SIM115
    file.write(data)
    return file  # type: ignore[return-value]


@pytest.mark.parametrize("open_file", [_on_disk, io.BytesIO, _spooled])
@pytest.mark.parametrize("replicate", [1, 3])
def test_a_file_is_read_from_where_it_stands_and_not_closed(
    call: Doors,
    provider: StandIn,
    open_file: Callable[[bytes], IO[bytes]],
    replicate: int,
) -> None:
    file = open_file(b"a caller's own header" + CLIP)
    file.seek(21)
    made = luna(call, three(provider), video=file, replicate=replicate)
    assert not file.closed
    for request in provider.requests:
        assert request.status == 200  # the stand-in takes MP4 only: it began where the file stood
        assert request.files[0].size == len(CLIP)
    assert made.id
    file.close()


def test_a_plain_file_is_not_moved(call: Doors, provider: StandIn, tmp_path: Path) -> None:
    (tmp_path / "luna.mp4").write_bytes(b"xx" + CLIP)
    with (tmp_path / "luna.mp4").open("rb") as file:
        file.seek(2)
        luna(call, three(provider), video=file, replicate=3)
        assert file.tell() == 2
        assert file.read() == CLIP


def test_a_stream_that_cannot_be_read_twice_is_read_once(call: Doors, provider: StandIn) -> None:
    file = Trickle(CLIP)
    luna(call, three(provider), video=file, replicate=3)
    assert [request.files[0].size for request in provider.requests] == [len(CLIP)] * 3
    assert not file.closed
    assert file.reads == -(-len(CLIP) // 4096) + 1


def test_an_object_with_an_async_read_is_read_once(call: Doors, provider: StandIn) -> None:
    file = Upload(CLIP)
    luna(call, three(provider), video=file, replicate=3)
    assert file.bytes_read == len(CLIP)
    assert not file.closed
    for request in provider.requests:
        (seen,) = request.files
        assert (seen.name, seen.size, seen.content_type) == ("luna.mp4", len(CLIP), "video/mp4")


def test_another_attempt_sends_the_clip_again_from_its_start(
    call: Doors, provider: StandIn
) -> None:
    router = three(provider)
    provider.fault("status", status=429, times=2)
    luna(call, router, video=Trickle(CLIP))
    assert [request.status for request in provider.requests] == [429, 429, 200]
    assert {request.files[0].size for request in provider.requests} == {len(CLIP)}


def test_replicas_of_a_fleet_with_defaults(call: Doors, provider: StandIn) -> None:
    """The shape that `fleet()` of conftest has: keys and addresses from the accounts."""
    data = fleet("http://stand-in/v1", *THREE)
    router = Router.from_dict(
        data,
        environ={},
        http_client=provider.transport,
        async_http_client=provider.transport,
    )
    assert len(router.describe_id(luna(call, router, replicate="all").id).copies) == 3
