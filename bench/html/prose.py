"""Text with the places where a line may end: file names break at their separators, options and percentages do not break at all."""

from __future__ import annotations

import html
import re

_WORD = re.compile(r"\d[\d.,]* %|\S+")
_OPTION = re.compile(r"--?[A-Za-z][\w-]*")
_SUFFIX = re.compile(r"\.(?:onnx|trt|mtl|json|html|csv|pt2?|pth|npy|toml|py|cache|engine|plan)\b")
_SEPARATOR = re.compile(r"(?<=[\w)\]])([/_-])(?=\w)|(?<=[\w)\]])(\.)(?=\w)")


def prose(text: str) -> str:
    """Return text as HTML that breaks at the end of a line where people would break it.

    A browser breaks after any hyphen, so that ``--`` would stay behind without its option, and nowhere in a long file name.
    """
    done, parts = 0, []
    for found in _WORD.finditer(text):
        parts += [html.escape(text[done : found.start()]), _word(found[0])]
        done = found.end()
    return "".join([*parts, html.escape(text[done:])])


def _word(word: str) -> str:
    if word.endswith(" %"):
        return _whole(word)
    if is_file(word):
        return path(word)
    parts, done = [], 0
    for found in _OPTION.finditer(word):
        if found.start() and word[found.start() - 1] not in "(,;:'\"[":
            continue  # a hyphen within a word
        parts += [html.escape(word[done : found.start()]), _whole(found[0])]
        done = found.end()
    return "".join([*parts, html.escape(word[done:])])


def _whole(text: str) -> str:
    return f'<span class="whole">{html.escape(text)}</span>'


def is_file(word: str) -> bool:
    """Return whether a word is a file's name: it has a known suffix, or folders."""
    return _SUFFIX.search(word) is not None or word.count("/") > 1 or ("/" in word and "." in word.strip(".,;:()"))


def path(name: str) -> str:
    """Return a file's name as HTML that may break behind each slash, hyphen and underscore, and before each dot."""
    return _SEPARATOR.sub(lambda found: f"{found[1] or ''}<wbr>{found[2] or ''}", html.escape(name))
