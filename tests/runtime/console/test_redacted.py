from __future__ import annotations

import pytest

from mtl_deploy.runtime.console.redacted import redacted, redacted_source


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://user:secret@host/front", "rtsp://***@host/front"),
        ("RTSP://user:secret@host:554", "RTSP://***@host:554"),
        ("http://secret@10.0.0.7", "http://***@10.0.0.7"),
        ("http://user:sec@ret@host/a", "http://***@host/a"),
        ("http://user:sec/ret@host/a", "http://***@host/a"),
        ("http://user:sec?ret@host/a", "http://***@host/a"),
        ("http://user:sec#ret@host/a", "http://***@host/a"),
        ("http://user:secret@[fe80::1]:80/a", "http://***@[fe80::1]:80/a"),
        ("http://host/a?channel=1&pwd=secret&user=secret#x", "http://host/a?channel=1&pwd=***&user=***#x"),
        ("http://host/a?Token=secret", "http://host/a?Token=***"),
        ("http://host:80/@2x/a.mjpg", "http://host:80/@2x/a.mjpg"),
        ("http://[fe80::1]/@2x", "http://[fe80::1]/@2x"),
        ("http://host/a?panel=2", "http://host/a?panel=2"),
        ("rtsp:/user:secret@host/front", "rtsp:/***@host/front"),
        ("camera:0", "camera:0"),
        ("a@b.mp4", "a@b.mp4"),
    ],
)
def test_credentials_are_hidden(text: str, shown: str) -> None:
    assert redacted(text) == redacted_source(text) == shown
    assert redacted(f"lost '{text}', and {text} too") == f"lost '{shown}', and {shown} too"


def test_an_address_by_itself_may_hold_anything() -> None:
    assert redacted_source("rtsp://me:a b'c\"d@host/x") == "rtsp://***@host/x"


def test_properties_of_a_pipeline_are_hidden() -> None:
    text = "rtspsrc location=rtsp://a:secret@host/x user-id=me user-pw='my secret' latency=0 ! decodebin ! appsink"
    shown = "rtspsrc location=rtsp://***@host/x user-id=*** user-pw=*** latency=0 ! decodebin ! appsink"
    assert redacted_source(text) == shown
