"""Ids: they say where an asset lives, the same whichever call answers, and nobody can forge one."""

from __future__ import annotations

import itertools
import random
import string
import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from routing_parts import CLIP, Doors, FakeClock, deployment, fleet, in_process, litellm_id, serving

from router import InvalidIdError, Router
from router.ids import Asset, Copy, IdCodec, Kind
from router.testing import StandIn

SECRETS = {"unsigned": (), "signed": ("the first secret",)}
SIGNS = pytest.mark.parametrize("secrets", SECRETS.values(), ids=SECRETS)
KINDS = (Kind.VIDEO, Kind.CHARACTER)
URL_SAFE = set(string.ascii_letters + string.digits + "-_")


def _accounts(rng: random.Random) -> list[str]:
    """Account names as people choose them, and as they do not."""
    letters = "abcdefghij0123456789-_. ~äöüß東京موسكو🎬"
    odd = ["a", "Ünïcødé-Köln", "東京-1", "🎬 studio", "a/b", "x" * 40, "; model_id:", "\u200b"]
    names = odd + ["".join(rng.choices(letters, k=rng.randint(1, 24))) for _ in range(600)]
    return list(dict.fromkeys(names))


def _natives(rng: random.Random) -> list[str]:
    """Native ids in the shapes that providers are known to give, and stranger ones."""

    def hexes(digits: int) -> str:
        return f"{rng.getrandbits(4 * digits):0{digits}x}"

    shapes = [
        lambda: f"video_{hexes(32)}",
        lambda: f"video_{hexes(48)}",
        lambda: f"char_{hexes(32)}",
        lambda: str(uuid.UUID(int=rng.getrandbits(128), version=4)),
        lambda: f"models/veo-3/operations/{hexes(12)}",
        lambda: "".join(rng.choices(string.printable, k=rng.randint(1, 60))),
        lambda: "".join(rng.choices("äß東🎬", k=rng.randint(1, 12))),
    ]
    return [rng.choice(shapes)() for _ in range(2000)]


def _native_shapes(rng: random.Random) -> Iterator[str]:
    """Ids that providers of our acquaintance give, or might."""
    base62 = string.ascii_letters + string.digits
    while True:
        yield f"video_{rng.getrandbits(128):032x}"
        yield f"video_{rng.getrandbits(192):048x}"
        yield f"char_{rng.getrandbits(128):032x}"
        yield f"character_{rng.getrandbits(128):032x}"
        yield str(uuid.UUID(int=rng.getrandbits(128), version=4))
        yield "".join(rng.choices(base62, k=rng.randint(1, 200)))
        yield "".join(rng.choices(base62 + "-_", k=64))
        yield litellm_id(Kind.VIDEO, "sora-2", f"video_{rng.getrandbits(128):032x}")


# What an id says


def test_a_million_ids_say_what_was_written_into_them() -> None:
    rng = random.Random(20_261_122)
    accounts, natives = _accounts(rng), _natives(rng)
    # As in life, most ids have one copy, and some up to eight. One in eight is signed: what an
    # HMAC costs bounds how many a test can afford.
    sizes = [1] * 143 + list(range(2, 9))
    codecs = [IdCodec()] * 7 + [IdCodec(["a secret"])]
    drawn = itertools.cycle(natives)
    wrong = 0
    for at in range(1_000_000):
        codec, kind = codecs[at % 8], KINDS[at % 2]
        start = rng.randrange(500)
        copies = sorted(map(Copy, accounts[start : start + sizes[at % 150]], drawn))
        asset = codec.decode(codec.encode(kind, copies), kind)
        wrong += asset is None or asset.copies != tuple(copies) or asset.kind is not kind
    assert wrong == 0


@SIGNS
def test_an_id_is_safe_in_a_url_and_says_what_it_names(secrets: tuple[str, ...]) -> None:
    codec = IdCodec(secrets)
    for kind in KINDS:
        written = codec.encode(kind, [Copy("Ünïcødé/..", "a b?c#d%e")])
        assert written.startswith(f"{kind}_")
        assert set(written) <= URL_SAFE
        assert codec.decode(written, kind) == Asset(
            kind, (Copy("Ünïcødé/..", "a b?c#d%e"),), signed=bool(secrets)
        )


@SIGNS
@pytest.mark.parametrize("account_length", [1, 10, 40, 79])
def test_an_id_of_one_copy_has_at_most_160_characters(
    secrets: tuple[str, ...], account_length: int
) -> None:
    copy = Copy("a" * account_length, "n" * (80 - account_length))
    for kind in KINDS:
        assert len(IdCodec(secrets).encode(kind, [copy])) <= 160


@SIGNS
@pytest.mark.parametrize("account_length", [2, 19, 54])
def test_each_further_copy_adds_at_most_80_characters(
    secrets: tuple[str, ...], account_length: int
) -> None:
    first = Copy("a" * 24, "n" * 56)
    further = [Copy(f"b{i}".ljust(account_length, "b"), "n" * (56 - account_length)) for i in "234"]
    further += [
        Copy(f"c{i}".ljust(account_length, "c"), "n" * (56 - account_length)) for i in "5678"
    ]
    for count in range(8):
        written = IdCodec(secrets).encode(Kind.CHARACTER, [first, *further[:count]])
        assert len(written) <= 160 + 80 * count


@SIGNS
def test_the_order_of_copies_makes_no_difference(secrets: tuple[str, ...]) -> None:
    codec = IdCodec(secrets)
    copies = [Copy(account, f"char_{account}") for account in "dacb"]
    ids = {codec.encode(Kind.CHARACTER, order) for order in itertools.permutations(copies)}
    assert len(ids) == 1


# Altered ids


@pytest.fixture
def only_east() -> dict[str, Any]:
    """One account, where a native id is clear at once: what is not seen to be ours is sent."""
    data: dict[str, Any] = fleet("http://stand-in/v1", "east")
    return data


def _altered(ours: str) -> set[str]:
    """All single-character changes of an id, its truncations, and its prefix exchanged."""
    letters = sorted(URL_SAFE | set("/+=.%~ é"))
    substituted = {
        ours[:at] + letter + ours[at + 1 :] for at in range(len(ours)) for letter in letters
    }
    deleted = {ours[:at] + ours[at + 1 :] for at in range(len(ours))}
    body = ours.index("_vr") + 1
    truncated = {ours[:end] for end in range(body + 3, len(ours))}
    prefixes = ("video_", "character_", "page_", "char_", "Video_", "VIDEO_", "", "_")
    exchanged = {prefix + ours[body:] for prefix in prefixes}
    doubled = {ours + ours, ours + "=", ours + "A", f" {ours}", f"{ours} ", f"{ours}\n"}
    return (substituted | deleted | truncated | exchanged | doubled) - {ours}


@SIGNS
@pytest.mark.parametrize("kind", KINDS)
def test_no_altered_id_is_taken_for_ours_or_for_a_native_one(
    secrets: tuple[str, ...], kind: Kind
) -> None:
    codec = IdCodec(secrets)
    ours = codec.encode(kind, [Copy("east", f"video_{7:032x}")])
    slipped = []
    for text in _altered(ours):
        try:
            slipped.append((text, codec.decode(text, kind)))
        except InvalidIdError:
            continue
    assert slipped == []


@SIGNS
def test_an_altered_id_sends_nothing(
    call: Doors, provider: StandIn, only_east: dict[str, Any], secrets: tuple[str, ...]
) -> None:
    only_east["settings"] = {"id_secrets": list(secrets)}
    router = in_process(provider, only_east)
    ours = router.video_generation(prompt="a heron").id
    before = len(provider.requests)
    altered = sorted(_altered(ours))
    # Where the prefix is no longer ours, the id comes closest to a native one: all of those.
    chosen = [text for text in altered if not text.startswith("video_vr1")]
    for text in chosen + random.Random(5).sample(altered, 200):
        with pytest.raises(InvalidIdError):
            call(router, "video_status", text)
    assert len(provider.requests) == before


@pytest.mark.parametrize(
    ("method", "arguments"),
    [
        ("video_status", {"video_id": "{}"}),
        ("video_content", {"video_id": "{}"}),
        ("video_delete", {"video_id": "{}"}),
        ("video_wait", {"video_id": "{}"}),
        ("video_remix", {"video_id": "{}", "prompt": "x"}),
        ("video_edit", {"video_id": "{}", "prompt": "x"}),
        ("video_edit", {"video": {"id": "{}"}, "prompt": "x"}),
        ("video_extension", {"video_id": "{}", "prompt": "x", "seconds": 4}),
        ("video_get_character", {"character_id": "{}"}),
        ("video_generation", {"prompt": "x", "characters": ["{}"]}),
        ("video_generation", {"prompt": "x", "characters": [{"id": "{}"}]}),
        ("video_list", {"after": "{}"}),
        ("locate", {"text": "{}"}),
    ],
)
def test_every_operation_refuses_an_altered_id(
    call: Doors, provider: StandIn, method: str, arguments: dict[str, Any]
) -> None:
    router = in_process(provider, fleet("http://stand-in/v1", "east"))
    kind = "character" if "character" in str(arguments) else "page" if "after" in arguments else ""
    ours = IdCodec().encode(Kind(kind or "video"), [Copy("east", "native_1")])
    altered = ours[:-3] + ("A" if ours[-3] != "A" else "B") + ours[-2:]

    def filled(value: Any) -> Any:
        if isinstance(value, str):
            return value.replace("{}", altered)
        if isinstance(value, list):
            return [filled(item) for item in value]
        return {k: filled(v) for k, v in value.items()} if isinstance(value, dict) else value

    named = filled(arguments)
    positional = [named.pop("text")] if "text" in named else []
    with pytest.raises(InvalidIdError):
        call(router, method, *positional, **named)
    assert provider.requests == []


def test_native_ids_are_never_taken_for_ours() -> None:
    codecs = [IdCodec(), IdCodec(["a secret"])]
    shapes = _native_shapes(random.Random(11))
    for at, native in enumerate(itertools.islice(shapes, 100_000)):
        assert codecs[at % 2].decode(native, KINDS[at // 2 % 2]) is None


@SIGNS
def test_what_only_looks_like_ours_is_refused(secrets: tuple[str, ...]) -> None:
    codec, rng = IdCodec(secrets), random.Random(13)
    for _ in range(5_000):
        body = "".join(rng.choices(sorted(URL_SAFE), k=rng.randint(0, 160)))
        with pytest.raises(InvalidIdError):
            codec.decode(f"video_vr1{body}", Kind.VIDEO)


@pytest.mark.parametrize("text", ["x" * 5000, "video_vr1" + "A" * 5000, "video_" + "é" * 5000])
def test_an_endless_id_is_refused_unread(call: Doors, provider: StandIn, text: str) -> None:
    router = in_process(provider, fleet("http://stand-in/v1", "east"))
    with pytest.raises(InvalidIdError):
        call(router, "video_status", text)
    assert provider.requests == []


@pytest.mark.parametrize(
    "text",
    ["../x", "..", ".", "a/../b", "a/..", "..\\a", "a b", "a\nb", "a\0b", "\u202eabc", " ", "./a"],
)
def test_a_native_id_that_is_a_path_or_unprintable_is_refused(
    call: Doors, provider: StandIn, text: str
) -> None:
    router = in_process(provider, fleet("http://stand-in/v1", "east"))
    with pytest.raises(InvalidIdError):
        call(router, "video_status", text)
    with pytest.raises(InvalidIdError):
        call(router, "locate", text)
    assert provider.requests == []


# Kinds and secrets


@SIGNS
def test_kinds_are_not_interchangeable(
    call: Doors, provider: StandIn, secrets: tuple[str, ...]
) -> None:
    data = fleet("http://stand-in/v1") | {"settings": {"id_secrets": list(secrets)}}
    router = in_process(provider, data)
    video = call(router, "video_generation", prompt="a heron").id
    character = call(router, "video_create_character", name="Luna", video=CLIP).id
    page = call(router, "video_list", limit=1).last_id
    before = len(provider.requests)
    for wrong in (character, page):
        for method in ("video_status", "video_content", "video_delete"):
            with pytest.raises(InvalidIdError):
                call(router, method, wrong)
    for wrong in (video, page):
        with pytest.raises(InvalidIdError):
            call(router, "video_get_character", wrong)
        with pytest.raises(InvalidIdError):
            call(router, "video_generation", prompt="x", characters=[wrong])
    for wrong in (video, character):
        with pytest.raises(InvalidIdError):
            call(router, "video_list", after=wrong)
    assert len(provider.requests) == before


def _with_secrets(provider: StandIn, *secrets: str, unsigned: bool = True) -> Router:
    settings = {"id_secrets": list(secrets), "accept_unsigned_ids": unsigned}
    router: Router = in_process(provider, fleet("http://stand-in/v1") | {"settings": settings})
    return router


def test_the_first_secret_signs_and_all_verify(call: Doors, provider: StandIn) -> None:
    old = _with_secrets(provider, "old secret")
    both = _with_secrets(provider, "new secret", "old secret")
    new = _with_secrets(provider, "new secret")
    by_old = call(old, "video_generation", prompt="a heron").id
    by_both = call(both, "video_generation", prompt="a heron").id
    assert call(both, "video_status", by_old).id == by_old
    assert call(new, "video_status", by_both).id == by_both
    for router, foreign in ((new, by_old), (old, by_both)):
        sent = len(provider.requests)
        with pytest.raises(InvalidIdError):
            call(router, "video_status", foreign)
        assert len(provider.requests) == sent


def test_a_signed_id_means_nothing_to_a_router_without_secrets(
    call: Doors, provider: StandIn
) -> None:
    signed = call(_with_secrets(provider, "a secret"), "video_generation", prompt="x").id
    sent = len(provider.requests)
    with pytest.raises(InvalidIdError):
        call(in_process(provider), "video_status", signed)
    assert len(provider.requests) == sent


def test_unsigned_ids_are_accepted_until_they_are_not(call: Doors, provider: StandIn) -> None:
    unsigned = call(in_process(provider), "video_generation", prompt="x").id
    assert call(_with_secrets(provider, "a secret"), "video_status", unsigned).done
    sent = len(provider.requests)
    with pytest.raises(InvalidIdError):
        call(_with_secrets(provider, "a secret", unsigned=False), "video_status", unsigned)
    assert len(provider.requests) == sent


def test_an_unsigned_id_cannot_be_passed_off_as_signed() -> None:
    signing = IdCodec(["a secret"], accept_unsigned=False)
    ours = IdCodec().encode(Kind.VIDEO, [Copy("east", "video_1")])
    # The flag is the first byte; with it set, the digest would have to be an HMAC.
    flipped = ours.replace("video_vr1A", "video_vr1B", 1)
    for text in (ours, flipped):
        with pytest.raises(InvalidIdError):
            signing.decode(text, Kind.VIDEO)


def test_empty_secrets_are_none(call: Doors, provider: StandIn) -> None:
    data = fleet("http://stand-in/v1") | {"settings": {"id_secrets": ["", "${NOT_SET:-}"]}}
    router = in_process(provider, data)
    assert not router.describe_id(call(router, "video_generation", prompt="x").id).signed


# LiteLLM's ids


def test_litellms_ids_are_understood_where_they_name_a_deployment(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider)
    for account in ("east", "west"):
        ours = call(router, "video_generation", prompt="x", account=account).id
        native = router.describe_id(ours).copies[0].native_id
        foreign = litellm_id(Kind.VIDEO, f"{account}-1", native)
        answer = call(router, "video_status", foreign)
        assert answer.id == ours
        assert answer.routing.account == account
        clip = call(router, "video_create_character", name="L", video=CLIP, account=account).id
        native = router.describe_id(clip).copies[0].native_id
        foreign = litellm_id(Kind.CHARACTER, f"{account}-1", native)
        assert call(router, "video_get_character", foreign).id == clip


def test_litellms_ids_are_padded_or_not_and_of_either_alphabet(
    call: Doors, provider: StandIn
) -> None:
    router = in_process(provider)
    ours = call(router, "video_generation", prompt="x", account="west").id
    native = router.describe_id(ours).copies[0].native_id
    foreign = litellm_id(Kind.VIDEO, "west-1", native)
    for text in (foreign, foreign.rstrip("=")):
        assert call(router, "video_status", text).id == ours


@pytest.mark.parametrize("model_id", ["sora-2", "", "gone-1"])
def test_litellms_ids_that_name_no_deployment_are_refused(
    call: Doors, provider: StandIn, model_id: str
) -> None:
    router = in_process(provider, fleet("http://stand-in/v1", "east"))
    with pytest.raises(InvalidIdError):
        call(router, "video_status", litellm_id(Kind.VIDEO, model_id, "video_1"))
    assert provider.requests == []


def test_litellms_ids_carry_no_path_and_no_other_kind(call: Doors, provider: StandIn) -> None:
    router = in_process(provider, fleet("http://stand-in/v1", "east"))
    for text in (
        litellm_id(Kind.VIDEO, "east-1", "../../secrets"),
        litellm_id(Kind.CHARACTER, "east-1", "char_1"),
    ):
        with pytest.raises(InvalidIdError):
            call(router, "video_status", text)
    assert provider.requests == []


def test_litellms_ids_are_refused_where_only_signed_ones_are_accepted(
    call: Doors, provider: StandIn
) -> None:
    router = _with_secrets(provider, "a secret", unsigned=False)
    with pytest.raises(InvalidIdError):
        call(router, "video_status", litellm_id(Kind.VIDEO, "east-1", "video_1"))
    assert provider.requests == []


# One asset, one id


@SIGNS
def test_a_video_has_one_id_whichever_call_answers(
    call: Doors, provider: StandIn, secrets: tuple[str, ...]
) -> None:
    data = fleet("http://stand-in/v1") | {"settings": {"id_secrets": list(secrets)}}
    router = in_process(provider, data)
    ours = call(router, "video_generation", prompt="a heron").id
    account, native = router.describe_id(ours).copies[0]
    assert call(router, "video_status", ours).id == ours
    assert call(router, "video_status", native, account=account).id == ours
    assert call(router, "video_wait", ours).id == ours
    assert [video.id for video in call(router, "video_list").data] == [ours]
    assert call(router, "locate", native) == ours
    for method, more in (
        ("video_edit", {}),
        ("video_remix", {}),
        ("video_extension", {"seconds": 4}),
    ):
        made = call(router, method, video_id=ours, prompt="at dusk", **more)
        assert made.remixed_from_video_id == ours
        assert made.id != ours
        assert call(router, "video_status", made.id).remixed_from_video_id == ours
    listed = {video.id: video.remixed_from_video_id for video in call(router, "video_list").data}
    assert listed.pop(ours) is None
    assert set(listed.values()) == {ours}
    assert call(router, "video_delete", ours).id == ours


@SIGNS
@pytest.mark.parametrize("replicate", [1, 2])
def test_a_character_has_one_id_whichever_call_answers(
    call: Doors, provider: StandIn, secrets: tuple[str, ...], replicate: int
) -> None:
    data = fleet("http://stand-in/v1") | {"settings": {"id_secrets": list(secrets)}}
    router = in_process(provider, data)
    made = call(router, "video_create_character", name="Luna", video=CLIP, replicate=replicate)
    assert len(router.describe_id(made.id).copies) == replicate
    for _ in range(6):  # either copy may answer
        assert call(router, "video_get_character", made.id).id == made.id


def test_a_restarted_router_reads_the_ids_of_the_one_before(
    call: Doors, provider: StandIn, clock: FakeClock
) -> None:
    first = in_process(provider, clock=clock)
    ours = call(first, "video_generation", prompt="a heron").id
    call.close(first)
    renamed = serving(provider, deployment("e", "east"), deployment("w", "west"))
    assert call(renamed, "video_status", ours).id == ours
