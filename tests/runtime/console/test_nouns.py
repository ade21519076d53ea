"""Numbers agree with what they count."""

from __future__ import annotations

import pytest

from mtl_deploy.runtime.console.nouns import counted, noun


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [
        (0, ("image",), "0 images"),
        (1, ("image",), "1 image"),
        (2, ("box", "boxes"), "2 boxes"),
        (1, ("box", "boxes"), "1 box"),
    ],
)
def test_a_number_is_written_with_its_noun(number: int, words: tuple[str, ...], text: str) -> None:
    assert counted(number, *words) == text


def test_verbs_agree_too() -> None:
    assert (noun(1, "image has", "images have"), noun(3, "image has", "images have")) == ("image has", "images have")
