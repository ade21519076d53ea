"""``mtl-infer`` on videos and live sources: what it writes, and where."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files.output_file import check_outputs
from mtl_deploy.runtime.files.reading import describe

from .lines import Lines, NobodyReadsError
from .play import PlayOptions, play
from .sources import Source

if TYPE_CHECKING:
    from mtl_deploy.runtime.model import Model

STANDARD_OUTPUT = "-"
SUFFIXES = (".json", ".jsonl", ".ndjson")


def play_command(
    model: Model, sources: Sequence[Source], options: PlayOptions, *, output: str | None, as_json: bool
) -> int:
    """Play sources, print a line for each frame, and return the exit code.

    Args:
        model: predicts.
        sources: see :func:`~mtl_deploy.runtime.live.play.play`.
        options: how.
        output: a file for JSON lines, or ``-`` for standard output; None: words on standard output.
        as_json: JSON lines on standard output.
    """
    to_file = output is not None and output != STANDARD_OUTPUT
    as_json = as_json or output is not None
    needed = options.show is None and not to_file and all(source.live for source in sources)
    with _opened(output if to_file else None, sources, force=options.force) as out:
        lines = Lines(out, as_json=as_json, many=len(sources) > 1, needed=needed)
        try:
            count = play(model, sources, lines, options)
        except NobodyReadsError:
            return 0
    if to_file or not as_json:
        sys.stdout.write(f"{counted(count, 'frame')}\n")
    return 0


@contextmanager
def _opened(output: str | None, sources: Sequence[Source], *, force: bool) -> Iterator[TextIO]:
    """Yield where lines go to. A file grows line by line, and stays however the run ends: others read it meanwhile."""
    if output is None:
        yield sys.stdout
        return
    path = Path(output)
    if path.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--output {output}: frames become JSON lines; name a file such as frames.jsonl, or -")
    check_outputs("--output", [path], [Path(source.text) for source in sources if not source.live], force=force)
    try:
        file = path.open("w" if force else "x", encoding="utf-8")
    except FileExistsError as error:
        raise OptionError(f"--output {output}: exists; pass --force to replace it, or name another place") from error
    except OSError as error:
        raise OptionError(f"--output {output}: {describe(error)}") from error
    try:
        yield file
    finally:
        with suppress(OSError):  # each line is flushed, and whoever wrote it was told
            file.close()
