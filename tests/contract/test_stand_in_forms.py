"""Form keys in brackets become the tree the client had in mind."""

from __future__ import annotations

from typing import Any

import pytest

from router.testing.forms import decode, nested
from router.testing.media import clip_seconds, is_clip


@pytest.mark.parametrize(
    ("pairs", "tree"),
    [
        ([("a", "1"), ("a", "2")], {"a": "2"}),
        ([("video[id]", "v")], {"video": {"id": "v"}}),
        ([("tags[]", "a"), ("tags[]", "b")], {"tags": ["a", "b"]}),
        ([("c[][id]", "a"), ("c[][id]", "b")], {"c": [{"id": "a"}, {"id": "b"}]}),
        (
            [("c[][id]", "a"), ("c[][n]", "A"), ("c[][id]", "b")],
            {"c": [{"id": "a", "n": "A"}, {"id": "b"}]},
        ),
        ([("c[1][id]", "b"), ("c[0][id]", "a")], {"c": [{"id": "a"}, {"id": "b"}]}),
        ([("video", "v"), ("video[id]", "v")], {"video": {"id": "v"}}),
        ([("a]b", "1")], {"a]b": "1"}),
    ],
)
def test_nested_keys(pairs: list[tuple[str, str]], tree: dict[str, Any]) -> None:
    assert nested(pairs) == tree


def test_a_multipart_body_keeps_its_bytes() -> None:
    content = b"\r\n--b-not\r\n\r\n--\x00\xff\r\n"
    body = decode(
        {"content-type": 'multipart/form-data; boundary="b"'},
        b'--b\r\nContent-Disposition: form-data; name="name"\r\n\r\nJ\xc3\xbcrgen\r\n'
        b'--b\r\nContent-Disposition: form-data; name="video"; filename="a%22b.mp4"\r\n'
        b"Content-Type: video/mp4\r\n\r\n" + content.replace(b"--b", b"--c") + b"\r\n--b--\r\n",
    )
    assert body.fields == {"name": "Jürgen"}
    (upload,) = body.uploads
    assert (upload.field, upload.filename, upload.content_type) == ("video", 'a"b.mp4', "video/mp4")
    assert upload.content == content.replace(b"--b", b"--c")


def test_the_clip_is_a_clip_of_three_seconds(clip: bytes) -> None:
    assert is_clip(clip)
    assert clip_seconds(clip) == 3
    assert not is_clip(b"GIF89a")
    assert clip_seconds(b"\0\0\0\x08ftyp") == 0
