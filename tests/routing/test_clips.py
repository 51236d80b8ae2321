"""What a clip says of itself is read from a few boxes, and whatever is odd says nothing."""

from __future__ import annotations

import random

import pytest
from clip_parts import CLIP, TOO_LONG, Held, box, movie

from router.clips import (
    MOST_BOXES,
    Clip,
    advice_on_clip,
    read_clip,
    size_in,
)
from router.testing.media import SPRITESHEET, THUMBNAIL


def read(data: bytes) -> Clip | None:
    return read_clip(Held(data))


# Reading ----------------------------------------------------------------------------------------


def test_real_clips_say_how_large_and_how_long_they_are() -> None:
    assert read(CLIP) == Clip(1280, 720, pytest.approx(3.0, abs=0.05))
    assert read(TOO_LONG) == Clip(320, 240, pytest.approx(10.0, abs=0.05))


@pytest.mark.parametrize("version", [0, 1])
def test_both_widths_of_the_boxes_are_understood(version: int) -> None:
    assert read(movie(720, 1280, 2.5, version=version)) == Clip(720, 1280, 2.5)


@pytest.mark.parametrize("version", [0, 1])
def test_what_a_telephone_films_upright_is_upright(version: int) -> None:
    assert read(movie(1920, 1080, turned=True, version=version)) == Clip(1080, 1920, 3.0)


@pytest.mark.parametrize("version", [0, 1])
def test_a_length_that_is_not_told_is_not_known(version: int) -> None:
    assert read(movie(seconds=None, version=version)) == Clip(1280, 720, None)
    assert read(movie(seconds=0, version=version)) == Clip(1280, 720, None)


def test_sound_and_texts_are_no_pictures() -> None:
    assert read(movie(handler=b"soun")) is None
    assert read(movie(handler=b"text")) is None


def test_a_large_file_costs_some_dozen_small_reads() -> None:
    # A box of 64 bits' length, of which nothing but its head is there to be read.
    pictures = (1).to_bytes(4) + b"mdat" + (5 << 30).to_bytes(8)
    head = movie(before=b"")
    front, behind = head[:16], head[16:]

    class Far(Held):
        def read_at(self, offset: int, size: int) -> bytes:
            if offset >= 16 + (5 << 30):
                self.reads += 1
                found = behind[offset - 16 - (5 << 30) :][:size]
                self.bytes_read += len(found)
                return found
            return super().read_at(offset, size)

    far = Far(front + pictures, 16 + (5 << 30) + len(behind))
    assert read_clip(far) == Clip(1280, 720, 3.0)
    assert far.reads < 60
    assert far.bytes_read < 400


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0",
        b"GIF89a, not a clip at all",
        b"\x1aE\xdf\xa3" + bytes(100),
        THUMBNAIL,
        SPRITESHEET,
        bytes(1000),
        b"\xff" * 1000,
        movie(0, 0),
        box(b"moov"),
        box(b"moov", box(b"mvhd"), box(b"trak")),
        b"\0\0\0\x01moov" + b"\xff" * 8,
        b"\0\0\0\x01moov" + bytes(8),
        TOO_LONG[:80_000],
    ],
)
def test_what_is_no_clip_says_nothing(data: bytes) -> None:
    assert read(data) is None


def test_boxes_without_end_are_given_up() -> None:
    endless = Held(box(b"free") * 100_000 + movie())
    assert read_clip(endless) is None
    assert endless.reads <= 3 * MOST_BOXES


def test_a_clip_cut_off_anywhere_is_no_error() -> None:
    for end in range(len(CLIP[:4000])):
        read(CLIP[:end])


def test_a_damaged_clip_is_no_error_and_costs_no_more() -> None:
    rng = random.Random(5)
    header = TOO_LONG.index(b"moov") - 4
    for _ in range(3000):
        data = bytearray(TOO_LONG)
        for _ in range(rng.randint(1, 12)):
            data[rng.randrange(header, len(data))] = rng.randrange(256)
        held = Held(bytes(data))
        clip = read_clip(held)
        assert held.reads <= 3 * MOST_BOXES + 20
        assert clip is None or (clip.width > 0 and clip.height > 0)


def test_a_file_that_cannot_be_read_any_more_says_nothing() -> None:
    class Gone(Held):
        def read_at(self, offset: int, size: int) -> bytes:
            raise OSError("it was on a network")

    assert read_clip(Gone(CLIP)) is None


# Advice -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1280, 720), (720, 1280), (1920, 1080), (1920, 1088), (720, 720)])
@pytest.mark.parametrize("seconds", [2.0, 3.0, 4.0, 4.04, None])
def test_nothing_speaks_against_a_good_clip(size: tuple[int, int], seconds: float | None) -> None:
    assert advice_on_clip(Clip(*size, seconds)) == []


@pytest.mark.parametrize(
    ("clip", "words"),
    [
        (Clip(1280, 720, 1.5), ["1.5 s long"]),
        (Clip(1280, 720, 10.0), ["10 s long"]),
        (Clip(854, 480, 3.0), ["480"]),
        (Clip(3840, 2160, 3.0), ["2160"]),
        (Clip(960, 720, 3.0), ["distorted"]),
        (Clip(320, 240, 10.0), ["10 s long", "720p to 1080p", "distorted"]),
    ],
)
def test_each_thing_that_is_off_is_said_once(clip: Clip, words: list[str]) -> None:
    advice = advice_on_clip(clip)
    assert len(advice) == len(words)
    assert all(word in line for word, line in zip(words, advice, strict=True))


@pytest.mark.parametrize("written", [None, "", "720p", "auto", "1280X720", "0x720", "1280x720x2"])
def test_what_is_no_size_in_pixels_is_none(written: str | None) -> None:
    assert size_in(written) is None


def test_a_size_is_width_and_height() -> None:
    assert size_in("1280x720") == (1280, 720)
