"""Ids that know where their asset lives.

What a provider makes exists in one account only, so an id that does not name the account is half an
id. Ours carry an account and a native id for each copy of the asset, and need no table to be read:
they survive a restart, a renamed deployment, a rotated API key and the loss of shared state.

    video_vr1 <base64url: flags · (len account len native)… · 16 bytes of digest>

The digest is an HMAC-SHA256 when there is a secret and a plain SHA-256 when there is none; cut to
128 bits either way, so no native id is ever mistaken for ours, and an altered one of ours is told
from a native one before anything is sent. The encoding is a function of the asset alone: whichever
call answers, the id is the same.

LiteLLM's ids (`litellm:custom_llm_provider:…;model_id:…;video_id:…`, in base64) are read too; they
name a deployment at best, so the caller of `decode_litellm` has to know that deployment.
"""

from __future__ import annotations

import base64
import binascii
import enum
import functools
import hashlib
import hmac
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from router.errors import InvalidIdError

__all__ = [
    "Asset",
    "Copy",
    "IdCodec",
    "Kind",
    "LiteLLMId",
    "checked_native",
    "decode_litellm",
    "is_usable",
    "quoted",
]

_VERSION = "vr1"
_DIGEST_BYTES = 16
_SIGNED = 0x01
# Long enough for any provider's operation name, short enough for a URL.
# Eight copies with the longest native ids, in letters of four bytes.
_LONGEST_ID = 32_768
_LONGEST_FOREIGN = 4096
_LONGEST_NATIVE = 512


class Kind(enum.StrEnum):
    """What an id names; also its visible prefix. A page's cursor is an id of positions."""

    VIDEO = "video"
    CHARACTER = "character"
    PAGE = "page"

    __hash__ = str.__hash__

    @property
    def prefix(self) -> str:
        return _PREFIXES[self]


_PREFIXES = {kind: f"{kind.value}_{_VERSION}" for kind in Kind}


class Copy(NamedTuple):
    """One copy of an asset: the account that owns it, and its id there."""

    account: str
    native_id: str


@dataclass(frozen=True, slots=True)
class Asset:
    """What an id says. `copies` has one entry but for characters made with `replicate`."""

    kind: Kind
    copies: tuple[Copy, ...]
    signed: bool = False

    @property
    def accounts(self) -> tuple[str, ...]:
        return tuple(copy.account for copy in self.copies)

    def native_in(self, account: str) -> str:
        return next(copy.native_id for copy in self.copies if copy.account == account)


class LiteLLMId(NamedTuple):
    """What an id made by LiteLLM says: its deployment (or upstream model), and the native id."""

    kind: Kind
    model_id: str
    native_id: str


class IdCodec:
    """Writes and reads ids. The first of `secrets` signs, each of them verifies."""

    def __init__(self, secrets: Sequence[str] = (), *, accept_unsigned: bool = True) -> None:
        self._keys = tuple(secret.encode() for secret in secrets if secret)
        self.only_signed = bool(self._keys) and not accept_unsigned

    @property
    def signs(self) -> bool:
        return bool(self._keys)

    def of_tenant(self, name: str) -> IdCodec:
        """Writes and reads the ids of one tenant, and no others; only where ids are signed.

        Its keys are derived from ours, each by an HMAC of the name, so nothing has to be kept.
        """
        codec = IdCodec(accept_unsigned=False)
        word = f"video-router tenant\0{name}".encode()
        codec._keys = tuple(hmac.digest(key, word, "sha256") for key in self._keys)
        codec.only_signed = True
        return codec

    def encode(self, kind: Kind, copies: Sequence[Copy]) -> str:
        """The id of an asset: at most 160 characters for one copy, 80 for each further."""
        payload = bytearray([_SIGNED if self._keys else 0])
        for account, native_id in sorted(copies):
            for text in (account.encode(), native_id.encode()):
                payload += _varint(len(text)) + text
        key = self._keys[0] if self._keys else None
        return kind.prefix + _to_base64(bytes(payload) + _digest(key, kind, bytes(payload)))

    def decode(self, text: str, kind: Kind) -> Asset | None:
        """What one of our ids says; `None` for an id that is not ours.

        Raises `InvalidIdError` for one of ours that was altered, is of another kind, was signed
        with a secret that this router lacks, or is unsigned where only signed ids are accepted.
        """
        longest = _LONGEST_ID if text.startswith(tuple(_PREFIXES.values())) else _LONGEST_FOREIGN
        if len(text) > longest:
            raise InvalidIdError(f"an id of {len(text)} characters is none; they end at {longest}")
        for other, prefix in _PREFIXES.items():
            if text.startswith(prefix):
                return self._read(text, other, kind)
        if self._is_ours_with_a_changed_prefix(text):
            raise InvalidIdError(f"the id {quoted(text)} was altered")
        return None

    def _read(self, text: str, written: Kind, wanted: Kind) -> Asset:
        payload = _verified(text[len(written.prefix) :], written, self._keys)
        if payload is None:
            raise InvalidIdError(
                f"the id {quoted(text)} was altered, or signed with a secret this router lacks"
            )
        if written is not wanted:
            raise InvalidIdError(f"a {wanted} id is needed here; {quoted(text)} is a {written}'s")
        signed = bool(payload[0] & _SIGNED)
        if self.only_signed and not signed:
            raise InvalidIdError(f"only signed ids are accepted, and {quoted(text)} is unsigned")
        return Asset(written, self._checked_copies(text, payload, written), signed)

    @staticmethod
    def _checked_copies(text: str, payload: bytes, kind: Kind) -> tuple[Copy, ...]:
        # A plain digest is no secret: whoever makes an id up must not get a path into a URL.
        try:
            copies = _copies(payload)
        except (ValueError, IndexError):
            raise InvalidIdError(f"the id {quoted(text)} was altered") from None
        if kind is not Kind.PAGE and not all(is_usable(copy.native_id) for copy in copies):
            raise InvalidIdError(f"the id {quoted(text)} names a path")
        return copies

    def _is_ours_with_a_changed_prefix(self, text: str) -> bool:
        # Without this, a letter too few or another in the prefix would make our id a native one.
        for prefix in _PREFIXES.values():
            end = len(prefix)
            if text[:end].lower() == prefix:
                return True  # and the rest is lost with its case
            swapped = text[: end - 1] + text[end : end + 1] + text[end - 1 : end] + text[end + 1 :]
            text = swapped if swapped.startswith(prefix) else text
        # The flags are 0 or 1, so what follows a prefix of ours always begins with this letter.
        longest = len(Kind.CHARACTER.prefix) + 2
        starts = [at for at in range(min(longest, len(text))) if text[at] == "A"]
        return any(
            _verified(text[at:], kind, self._keys) is not None for at in starts for kind in Kind
        )


def decode_litellm(text: str) -> LiteLLMId | None:
    """What an id made by LiteLLM says, or `None` for any other id."""
    prefix, _, body = text.partition("_")
    if prefix not in (Kind.VIDEO, Kind.CHARACTER):
        return None
    try:
        raw = base64.b64decode(body + "=" * (-len(body) % 4), altchars=b"-_", validate=True)
        plain = raw.decode()
    except (binascii.Error, ValueError):
        return None
    found = re.fullmatch(
        r"litellm:custom_llm_provider:[^;]*;model_id:([^;]*);(?:video|character)_id:(.+)", plain
    )
    return LiteLLMId(Kind(prefix), found[1], found[2]) if found else None


def checked_native(text: str) -> str:
    """`text`, where a caller may mean a native id by it; else `InvalidIdError`."""
    if not text.isprintable() or " " in text:
        raise InvalidIdError(f"the id {quoted(text)} has characters that no id has")
    if not is_usable(text):
        raise InvalidIdError(f"the id {quoted(text)} is empty, too long, or a path")
    return text


def is_usable(native: str) -> bool:
    """Whether a native id may stand in a URL's path, once percent-encoded, and in an id of ours."""
    if not 1 <= len(native) <= _LONGEST_NATIVE:
        return False
    return "." not in native or not {".", ".."} & set(re.split(r"[/\\]", native))


# A job is looked at many times under one id; reading it once is a tenth of a call.
@functools.lru_cache(4096)
def _verified(body: str, kind: Kind, keys: tuple[bytes, ...]) -> bytes | None:
    """The payload of an id, when its digest is right under one of the keys."""
    raw = _from_base64(body)
    if raw is None or len(raw) <= _DIGEST_BYTES:
        return None
    payload, digest = raw[:-_DIGEST_BYTES], raw[-_DIGEST_BYTES:]
    for key in keys if payload[0] & _SIGNED else (None,):
        if hmac.compare_digest(digest, _digest(key, kind, payload)):
            return payload
    return None


def _digest(key: bytes | None, kind: Kind, payload: bytes) -> bytes:
    message = kind.prefix.encode() + payload
    if key is None:
        return hashlib.sha256(message).digest()[:_DIGEST_BYTES]
    return hmac.digest(key, message, "sha256")[:_DIGEST_BYTES]


def _to_base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def _from_base64(text: str) -> bytes | None:
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return None
    # Base64 has several spellings of the same bytes; only the one we write is ours.
    return raw if _to_base64(raw) == text else None


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes(out) + bytes([number])


@functools.lru_cache(4096)
def _copies(payload: bytes) -> tuple[Copy, ...]:
    texts, at = [], 1
    while at < len(payload):
        length = shift = 0
        while True:
            byte, at = payload[at], at + 1
            length |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                break
        if at + length > len(payload):
            raise ValueError("a length beyond the end")
        texts.append(payload[at : at + length].decode())
        at += length
    if not texts:
        raise ValueError("no copy")
    return tuple(Copy(*pair) for pair in zip(texts[::2], texts[1::2], strict=True))


def quoted(text: str) -> str:
    """An id for a message: in quotes, escaped, and never long."""
    return repr(text if len(text) <= 60 else f"{text[:40]}…{text[-10:]}")
