"""Ids, for all accounts, native ids, secrets and edits: what they say, and what is never believed.

An id is money's address. One that is read as another asset, or as a native id of whoever happens
to be the only account, sends a paid follow-up to the wrong place; so most of these properties are
about what must not be accepted.
"""

from __future__ import annotations

import base64
import hashlib
import re
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from router import InvalidIdError
from router.ids import Asset, Copy, IdCodec, Kind, LiteLLMId, checked_native, decode_litellm

URL_SAFE = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"

kinds = st.sampled_from(Kind)
# A page's cursor holds positions, which are never part of a path; assets have ids that are.
asset_kinds = st.sampled_from([Kind.VIDEO, Kind.CHARACTER])
# HMAC fills a short key up with zero bytes: "a" and "a\0" are the same key to it.
secrets = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=12)
# Everything that UTF-8 has, and the halves of characters that it has not.
odd_text = st.text(st.characters(exclude_categories=())) | st.text(st.characters(codec="ascii"))


def is_path(text: str) -> bool:
    return any(segment in (".", "..") for segment in re.split(r"[/\\]", text))


account_ids = st.text(min_size=1, max_size=24)
native_ids = st.text(min_size=1, max_size=60).filter(lambda text: not is_path(text))


def cut(text: str, size: int) -> str:
    """As much of the text as fits into `size` bytes."""
    return text.encode()[:size].decode(errors="ignore")


@st.composite
def assets(draw: st.DrawFn, most: int = 8) -> list[Copy]:
    """The copies of an asset: one, or up to eight in as many accounts."""
    pairs = st.builds(Copy, account_ids, native_ids)
    return draw(st.lists(pairs, min_size=1, max_size=most, unique_by=lambda copy: copy.account))


@st.composite
def codecs(draw: st.DrawFn) -> IdCodec:
    return IdCodec(draw(st.lists(secrets, max_size=2)))


def refused(codec: IdCodec, text: str, kind: Kind) -> None:
    with pytest.raises(InvalidIdError):
        codec.decode(text, kind)


# What an id says


@given(codecs(), kinds, assets())
def test_an_id_says_what_was_written_into_it(
    codec: IdCodec, kind: Kind, copies: list[Copy]
) -> None:
    asset = codec.decode(codec.encode(kind, copies), kind)

    assert asset is not None
    assert asset.kind is kind
    assert sorted(asset.copies) == sorted(copies)
    assert {account: asset.native_in(account) for account in asset.accounts} == dict(copies)


@given(kinds, assets(most=1), st.lists(secrets, max_size=2))
def test_an_id_says_whether_it_is_signed(kind: Kind, copies: list[Copy], keys: list[str]) -> None:
    codec = IdCodec(keys)

    assert codec.decode(codec.encode(kind, copies), kind) == Asset(
        kind, tuple(copies), signed=bool(keys)
    )


@given(codecs(), kinds, assets(), st.data())
def test_the_same_asset_has_the_same_id_in_whatever_order_its_copies_come(
    codec: IdCodec, kind: Kind, copies: list[Copy], data: st.DataObject
) -> None:
    shuffled = data.draw(st.permutations(copies))

    assert codec.encode(kind, shuffled) == codec.encode(kind, copies)


@given(codecs(), kinds, assets(most=3), kinds, assets(most=3))
def test_two_assets_never_share_an_id(
    codec: IdCodec, kind: Kind, copies: list[Copy], other_kind: Kind, others: list[Copy]
) -> None:
    assume((kind, sorted(copies)) != (other_kind, sorted(others)))

    assert codec.encode(kind, copies) != codec.encode(other_kind, others)


# Where one text ends and the next begins must be said, not guessed.
@given(codecs(), kinds, st.text(max_size=30), st.text(max_size=30), st.data())
def test_what_belongs_to_the_account_is_never_taken_for_the_native_id(
    codec: IdCodec, kind: Kind, account: str, native: str, data: st.DataObject
) -> None:
    whole = account + native
    at = data.draw(st.integers(0, len(whole)).filter(lambda at: at != len(account)))

    assert codec.encode(kind, [Copy(account, native)]) != codec.encode(
        kind, [Copy(whole[:at], whole[at:])]
    )


@given(codecs(), kinds, assets())
def test_an_id_stands_in_a_url_as_it_is(codec: IdCodec, kind: Kind, copies: list[Copy]) -> None:
    ours = codec.encode(kind, copies)

    assert set(ours) <= set(URL_SAFE)
    assert quote(ours, safe="") == ours
    assert ours.startswith(f"{kind}_")


@given(codecs(), asset_kinds, st.integers(1, 79), st.text(), st.text())
def test_an_id_of_one_copy_is_no_longer_than_promised(
    codec: IdCodec, kind: Kind, length: int, account: str, native: str
) -> None:
    # In bytes, and filled up to the last one: the bound is about the longest.
    account = cut(account, length).ljust(1, "a")
    native = cut(native, 80 - len(account.encode())).ljust(1, "n")
    native += "n" * (80 - len((account + native).encode()))

    assert len(codec.encode(kind, [Copy(account, native)])) <= 160


@given(codecs(), asset_kinds, st.lists(st.tuples(st.integers(2, 55), st.text()), max_size=7))
def test_each_further_copy_makes_an_id_longer_by_no_more_than_promised(
    codec: IdCodec, kind: Kind, further: list[tuple[int, str]]
) -> None:
    copies = [Copy("a" * 24, "n" * 56)]
    for number, (length, text) in enumerate(further):
        account = f"{number}{cut(text, length - 1)}"
        copies.append(Copy(account, "n" * (56 - len(account.encode()))))

    assert len(codec.encode(kind, copies)) <= 160 + 80 * len(further)


# Altered ids


def _substituted(draw: st.DrawFn, ours: str, letters: st.SearchStrategy[str]) -> str:
    at = draw(st.integers(0, len(ours) - 1))
    return ours[:at] + draw(letters) + ours[at + 1 :]


def _inserted(draw: st.DrawFn, ours: str, letters: st.SearchStrategy[str]) -> str:
    at = draw(st.integers(0, len(ours)))
    return ours[:at] + draw(letters) + ours[at:]


def _deleted(draw: st.DrawFn, ours: str, _: object) -> str:
    at = draw(st.integers(0, len(ours) - 1))
    return ours[:at] + ours[at + 1 :]


def _truncated(draw: st.DrawFn, ours: str, _: object) -> str:
    # What is shorter than the prefix has nothing of ours left in it.
    return ours[: draw(st.integers(ours.index("_vr1") + 4, len(ours) - 1))]


def _case_flipped(draw: st.DrawFn, ours: str, _: object) -> str:
    at = draw(st.sampled_from([at for at, letter in enumerate(ours) if letter.isalpha()]))
    return ours[:at] + ours[at].swapcase() + ours[at + 1 :]


def _swapped(draw: st.DrawFn, ours: str, _: object) -> str:
    body = ours.index("_vr1") + 4
    at = draw(st.integers(0, body - 2) | st.integers(body, len(ours) - 2))
    return ours[:at] + ours[at + 1] + ours[at] + ours[at + 2 :]


def _doubled(draw: st.DrawFn, ours: str, _: object) -> str:
    return draw(st.sampled_from([ours + ours, f"{ours},{ours}", ours + "=", ours + "=="]))


EDITS = [_substituted, _inserted, _deleted, _truncated, _case_flipped, _swapped, _doubled]


@st.composite
def altered(draw: st.DrawFn, ours: str) -> str:
    """An id of ours after one slip of a hand, a program or an attacker."""
    letters = st.sampled_from(URL_SAFE) | st.characters(exclude_categories=())
    text = draw(st.sampled_from(EDITS))(draw, ours, letters)
    assume(text != ours)
    return text


@given(codecs(), kinds, assets(most=3), kinds, st.data())
def test_an_altered_id_is_refused_and_never_another_asset_nor_a_native_id(
    codec: IdCodec, kind: Kind, copies: list[Copy], asked: Kind, data: st.DataObject
) -> None:
    text = data.draw(altered(codec.encode(kind, copies)))

    refused(codec, text, asked)


@given(codecs(), kinds, assets(most=3))
def test_of_all_spellings_of_the_same_bytes_only_one_is_an_id(
    codec: IdCodec, kind: Kind, copies: list[Copy]
) -> None:
    # The last letter of base64 may have bits to spare, and there are two alphabets.
    ours = codec.encode(kind, copies)
    body = ours.index("_vr1") + 4
    spellings = {ours[:-1] + letter for letter in URL_SAFE}
    spellings |= {ours[:body] + ours[body:].translate({ord("-"): "+", ord("_"): "/"}), ours + "="}

    for text in spellings - {ours}:
        refused(codec, text, kind)


@given(codecs(), kinds, assets(most=3), st.text(max_size=13))
def test_an_id_under_another_prefix_is_refused(
    codec: IdCodec, kind: Kind, copies: list[Copy], prefix: str
) -> None:
    start, mark, body = codec.encode(kind, copies).partition("_vr1")
    assume(prefix != start + mark)

    refused(codec, prefix + body, kind)


@given(kinds, assets(most=2), secrets, st.data())
def test_without_the_secret_the_flag_of_an_unsigned_id_cannot_be_set(
    kind: Kind, copies: list[Copy], secret: str, data: st.DataObject
) -> None:
    # Whoever knows how ids are written knows the digest that needs no secret.
    flags = data.draw(st.integers(0, 255).map(lambda byte: byte | 1))
    payload = bytes([flags]) + _payload_of(IdCodec().encode(kind, copies))[1:]

    refused(IdCodec([secret]), forged(kind, payload), kind)
    refused(IdCodec([secret], accept_unsigned=False), forged(kind, payload), kind)


# Ids that somebody made up


def forged(kind: Kind, payload: bytes) -> str:
    """An unsigned id around any payload, as anybody can write it who has read how they are made."""
    prefix = f"{kind}_vr1"
    digest = hashlib.sha256(prefix.encode() + payload).digest()[:16]
    return prefix + base64.urlsafe_b64encode(payload + digest).decode().rstrip("=")


def _payload_of(ours: str) -> bytes:
    body = ours.partition("_vr1")[2]
    return base64.urlsafe_b64decode(body + "=" * (-len(body) % 4))[:-16]


def _entry(text: bytes) -> bytes:
    return bytes([len(text)]) + text


payloads = st.binary(max_size=60) | st.builds(
    lambda flags, texts: bytes([flags]) + b"".join(map(_entry, texts)),
    st.sampled_from([0, 2, 128]),
    st.lists(
        st.binary(max_size=20) | st.sampled_from([b"..", b".", b"a/../b", b"a\\..", b""]),
        max_size=6,
    ),
)


@given(kinds, assets(most=2))
def test_the_forger_of_these_tests_can_write_an_unsigned_id(kind: Kind, copies: list[Copy]) -> None:
    ours = IdCodec().encode(kind, copies)

    assert forged(kind, _payload_of(ours)) == ours


@given(asset_kinds, payloads, st.lists(secrets, max_size=1))
def test_a_made_up_id_brings_no_path_into_a_url(
    kind: Kind, payload: bytes, keys: list[str]
) -> None:
    try:
        asset = IdCodec(keys).decode(forged(kind, payload), kind)
    except InvalidIdError:
        return
    assert asset is not None
    assert asset.copies
    for copy in asset.copies:
        assert copy.native_id
        assert not is_path(copy.native_id)


@given(kinds, payloads, secrets)
def test_a_made_up_id_is_nothing_where_only_signed_ones_are_accepted(
    kind: Kind, payload: bytes, secret: str
) -> None:
    refused(IdCodec([secret], accept_unsigned=False), forged(kind, payload), kind)


# Kinds and secrets


@given(codecs(), assets(), kinds, kinds)
def test_an_id_of_another_kind_is_refused(
    codec: IdCodec, copies: list[Copy], kind: Kind, asked: Kind
) -> None:
    assume(kind is not asked)

    refused(codec, codec.encode(kind, copies), asked)


@given(kinds, assets(most=3), st.lists(secrets, min_size=1, max_size=4, unique=True), st.data())
def test_an_id_outlives_the_rotation_of_its_secret_and_no_longer(
    kind: Kind, copies: list[Copy], keys: list[str], data: st.DataObject
) -> None:
    signed_by = data.draw(st.sampled_from(keys))
    ours = IdCodec([signed_by]).encode(kind, copies)
    others = [key for key in keys if key != signed_by]

    asset = IdCodec(keys).decode(ours, kind)
    assert asset is not None
    assert sorted(asset.copies) == sorted(copies)
    assert asset.signed
    refused(IdCodec(others), ours, kind)


@given(kinds, assets(most=3), st.lists(secrets, min_size=1, max_size=3, unique=True))
def test_the_first_secret_signs(kind: Kind, copies: list[Copy], keys: list[str]) -> None:
    assert IdCodec(keys).encode(kind, copies) == IdCodec(keys[:1]).encode(kind, copies)


@given(kinds, assets(most=3), secrets, secrets)
def test_two_secrets_sign_differently(kind: Kind, copies: list[Copy], one: str, other: str) -> None:
    assume(one != other)

    assert IdCodec([one]).encode(kind, copies) != IdCodec([other]).encode(kind, copies)


@given(kinds, assets(most=3), st.lists(secrets | st.just(""), max_size=4))
def test_empty_secrets_are_none(kind: Kind, copies: list[Copy], keys: list[str]) -> None:
    written = [key for key in keys if key]

    assert IdCodec(keys).encode(kind, copies) == IdCodec(written).encode(kind, copies)
    assert IdCodec(keys, accept_unsigned=False).only_signed is bool(written)


@given(kinds, assets(most=3), secrets)
def test_unsigned_ids_are_accepted_beside_signed_ones_until_they_are_not(
    kind: Kind, copies: list[Copy], secret: str
) -> None:
    unsigned = IdCodec().encode(kind, copies)
    asset = IdCodec([secret]).decode(unsigned, kind)

    assert asset is not None
    assert not asset.signed
    refused(IdCodec([secret], accept_unsigned=False), unsigned, kind)


# What is not ours


def _in_base64(said: Any) -> str:
    raw = said if isinstance(said, bytes) else said.encode(errors="surrogatepass")
    return base64.b64encode(raw).decode()


HEX = st.text("0123456789abcdef", min_size=8, max_size=48)
provider_shapes = st.one_of(
    st.builds("{}_{}".format, st.sampled_from(["video", "char", "character", "task"]), HEX),
    st.uuids().map(str),
    st.builds("models/veo-3/operations/{}".format, HEX),
    st.text(URL_SAFE, min_size=1, max_size=200),
    st.builds("video_{}".format, st.text(URL_SAFE, max_size=200)),
    st.builds("video_{}".format, st.binary(max_size=90).map(_in_base64)),
)


@given(codecs(), kinds, provider_shapes | odd_text)
@example(IdCodec(), Kind.VIDEO, "")
@example(IdCodec(["s"]), Kind.VIDEO, "A" * 4096)
def test_what_does_not_begin_like_ours_is_left_to_be_a_native_id(
    codec: IdCodec, kind: Kind, text: str
) -> None:
    assume(not re.match(r"(video|character|page)_vr1", text))

    assert codec.decode(text, kind) is None


@given(codecs(), kinds, kinds, st.text(URL_SAFE, max_size=200) | odd_text)
def test_what_begins_like_ours_and_was_not_written_by_us_is_refused(
    codec: IdCodec, kind: Kind, asked: Kind, body: str
) -> None:
    refused(codec, f"{kind}_vr1{body}", asked)


@given(codecs(), kinds, st.integers(4097, 20_000), st.text(min_size=1, max_size=9))
def test_an_endless_text_is_refused(codec: IdCodec, kind: Kind, length: int, piece: str) -> None:
    refused(codec, (piece * length)[:length], kind)


@given(odd_text | native_ids | st.from_regex(r"[ab./\\]{1,9}", fullmatch=True))
def test_a_native_id_is_taken_as_it_is_or_refused(text: str) -> None:
    usable = 1 <= len(text) <= 512 and not is_path(text)
    usable = usable and text.isprintable() and " " not in text
    if usable:
        assert checked_native(text) == text
    else:
        with pytest.raises(InvalidIdError):
            checked_native(text)


@given(asset_kinds, native_ids.filter(lambda text: text.isprintable() and " " not in text))
def test_a_native_id_that_may_be_sent_may_also_stand_in_an_id(kind: Kind, native: str) -> None:
    codec = IdCodec()
    asset = codec.decode(codec.encode(kind, [Copy("east", checked_native(native))]), kind)

    assert asset is not None
    assert asset.native_in("east") == native


# LiteLLM's ids


def litellm_id(kind: Kind, provider: str, model: str, native: str) -> str:
    said = f"litellm:custom_llm_provider:{provider};model_id:{model};{kind}_id:{native}"
    return f"{kind}_{base64.b64encode(said.encode()).decode()}"


# LiteLLM has no way to write a semicolon, and no line breaks in what it writes.
litellm_words = st.text("ab:/=_-. ", max_size=20) | st.text(
    st.characters(codec="utf-8", exclude_characters=";\n"), max_size=20
)


@given(asset_kinds, litellm_words, litellm_words, litellm_words.filter(bool), st.booleans())
def test_an_id_of_litellm_says_its_deployment_and_its_native_id(
    kind: Kind, provider: str, model: str, native: str, padded: bool
) -> None:
    text = litellm_id(kind, provider, model, native)

    found = decode_litellm(text if padded else text.rstrip("="))
    assert found == LiteLLMId(kind, model, native)


near_litellm = st.one_of(
    odd_text,
    st.builds("{}_{}".format, kinds, odd_text),
    st.builds("{}_{}".format, kinds, st.binary(max_size=80).map(_in_base64)),
    st.builds(
        "video_{}".format,
        st.builds("litellm:custom_llm_provider:{};model_id:{}".format, odd_text, odd_text).map(
            _in_base64
        ),
    ),
)


@given(near_litellm)
def test_no_text_is_too_odd_to_be_asked_whether_litellm_wrote_it(text: str) -> None:
    found = decode_litellm(text)

    assert found is None or (found.native_id and found.kind in (Kind.VIDEO, Kind.CHARACTER))


@given(codecs(), kinds, assets(most=3))
def test_an_id_of_ours_is_never_read_as_one_of_litellms(
    codec: IdCodec, kind: Kind, copies: list[Copy]
) -> None:
    assert decode_litellm(codec.encode(kind, copies)) is None
