"""The loop over live sources and videos: read, predict in a stream, tell, draw, and end cleanly whoever ends it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mtl_deploy.runtime.errors import DeviceLostError, ImageError, OptionError
from mtl_deploy.runtime.files.output_file import check_outputs, placed
from mtl_deploy.runtime.show.video import WINDOW, FrameRate
from mtl_deploy.runtime.streams.result import StreamResult

from .capture import TIMEOUT, Frames
from .colours import taken
from .drawing import Drawing
from .feed import Feed, Opened
from .notify import Notifier
from .raw import RawFormat, RawFrames
from .sources import PIPE, Source
from .stats import Stats

if TYPE_CHECKING:
    from mtl_deploy.runtime.model import Model
    from mtl_deploy.runtime.streams.options import Drop
    from mtl_deploy.runtime.streams.stream import Stream

_JOIN = 3.0  # seconds that a reader has to end; one that hangs in a library is left behind
_HANGS = 3 * TIMEOUT  # seconds without any progress, after which the watchdog is not fed


@dataclass(frozen=True)
class PlayOptions:
    """How sources are played.

    Attributes:
        show: ``window``, a video file to write, or None.
        force: replace ``show`` where it exists.
        every: by task, frames from one computation to the next.
        drop: what happens to a frame that comes too fast; None: files and pipes wait, of cameras the oldest is dropped.
        boxes: ``(x, y, width, height)`` to cut out of each frame; None: whole frames.
        margin: around each box.
        raw: of the frames of a pipe.
        reconnect: the most seconds between two attempts to open a source again; None: never.
        patient: try again where the first attempt fails, too.
        stats: seconds between two lines of statistics on standard error; None: none.
    """

    show: Path | None = None
    force: bool = False
    every: Mapping[str, int] = field(default_factory=dict)
    drop: Drop | None = None
    boxes: Sequence[Sequence[float]] | None = None
    margin: float = 0.0
    raw: RawFormat | None = None
    reconnect: float | None = 30.0
    patient: bool = False
    stats: float | None = None


@dataclass(frozen=True)
class Shot:
    """A frame when it was read.

    Attributes:
        number: in its source, from 1; frames that were dropped have numbers too.
        time: of the system's clock, in seconds since 1970.
        pixels: the frame as it was read; None where nothing is drawn.
        layout: of the pixels.
    """

    number: int
    time: float
    pixels: Any
    layout: str


Told = Callable[[StreamResult, Shot, float], object]
"""Called with each result, its frame, and the frame rate of its source so far."""


def play(model: Model, sources: Sequence[Source], told: Told, options: PlayOptions | None = None) -> int:
    """Predict the frames of sources as they come, in a stream, and show them with what was predicted and the frame rate.

    The rate counts whole frames: reading, predicting, drawing and writing or showing. A recording stays whole when Ctrl-C or a
    termination ends the loop: this is how a camera is stopped.

    Args:
        model: predicts.
        sources: one video file, or live sources, with different labels.
        told: called with each result.
        options: see there; None: as they are.

    Returns:
        the number of frames that were predicted.

    Raises:
        ImageError: a source cannot be read, or pictures cannot be shown.
        OptionError: the file to write exists, cannot be written, or options do not fit the sources.
        RunError: a source was lost and is not to be opened again, or the backend failed.
    """
    options = options or PlayOptions()
    _check(model, sources, options)
    show = options.show
    if show is None or str(show) == WINDOW:
        return _Player(model, sources, told, options, show).play()
    check_outputs("--show", [show], [Path(one.text) for one in sources if not one.live], force=options.force)
    interrupt: KeyboardInterrupt | None = None
    count = 0
    with placed("--show", show, force=options.force) as beside:
        try:
            count = _Player(model, sources, told, options, beside).play()
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
    return count


def _check(model: Model, sources: Sequence[Source], options: PlayOptions) -> None:
    channels = model.signature.preprocessing.channel_count
    if channels not in (1, 3):
        label = sources[0].label
        raise OptionError(f"{label}: a video has 3 channels, and the network takes {channels}; pass arrays to predict")
    piped = any(source.kind == "pipe" for source in sources)
    if piped and options.raw is None:
        raise OptionError("-: say what comes, with --raw WIDTHxHEIGHT:FORMAT, such as --raw 1280x720:bgr")
    if options.raw is not None and not piped:
        raise OptionError(f"--raw {options.raw}: for frames from standard input; name - as the source")
    if options.show is not None and options.boxes is not None:
        raise OptionError("--show: draws predictions of whole frames; leave the boxes out, or --show")
    if options.show is not None and str(options.show) != WINDOW and len(sources) > 1:
        raise OptionError(f"--show {options.show}: one video is written of one source; use --show window")


class _Player:
    """One run of the loop."""

    def __init__(
        self, model: Model, sources: Sequence[Source], told: Told, options: PlayOptions, show: Path | None
    ) -> None:
        self._model, self._sources, self._told, self._options, self._show = model, sources, told, options, show
        live = any(source.live and source.kind != "pipe" for source in sources)
        self._stream: Stream = model.stream(
            options.every, drop=options.drop or ("oldest" if live else "wait"), results=2 if live else 8
        )
        self._lock = threading.Lock()
        self._meters = {source.label: FrameRate() for source in sources}
        self._stats = Stats([source.label for source in sources])
        self._progress = time.monotonic()
        self._feeds = [self._feed(source) for source in sources]

    def play(self) -> int:
        """Run until all sources have ended, and return the number of frames that were predicted."""
        with ExitStack() as stack:
            drawing = None if self._show is None else stack.enter_context(Drawing(self._show, self._model.tasks))
            stack.callback(self._end)
            notifier = stack.enter_context(Notifier(self._alive))
            for feed in self._feeds:
                feed.start()
            stack.enter_context(_repeated(self._options.stats, partial(self._say, notifier)))
            notifier.ready(f"reading {', '.join(feed.source.label for feed in self._feeds)}")
            count = self._loop(drawing)
        for feed in self._feeds:
            if feed.error is not None:
                raise feed.error
        return count

    def _loop(self, drawing: Drawing | None) -> int:
        count = 0
        for result in self._stream:
            self._progress = time.monotonic()
            shot: Shot = result.tag
            self._stats.add(result)
            if result.error is not None and (not count or not self._live or isinstance(result.error, DeviceLostError)):
                raise result.error
            meter = self._meters[str(result.source)]
            meter.tick()
            count += result.error is None
            self._told(result, shot, meter.rate)
            if drawing is not None and result.error is None:
                rate = next(feed.rate for feed in self._feeds if feed.source.label == result.source)
                if not drawing.add(result, shot.pixels, shot.layout, meter.rate, rate):
                    break
        return count

    @property
    def _live(self) -> bool:
        return any(source.live for source in self._sources)

    def _feed(self, source: Source) -> Feed:
        options = self._options
        feed: Feed

        def open_source() -> Opened:
            if source.kind != "pipe":
                return Frames(source)
            assert options.raw is not None  # checked before
            return RawFrames(_standard_input(), options.raw, source.label, lambda: feed.stopping())

        feed = Feed(
            source,
            open_source,
            self._submit,
            self._ended,
            reconnect=options.reconnect,
            patient=options.patient,
            tell=lambda line: _to_stderr([line]),
        )
        return feed

    def _submit(self, source: Source, frame: Any, opened: Opened) -> None:
        feed = next(one for one in self._feeds if one.source is source)
        shot = Shot(feed.frames, time.time(), None if self._show is None else frame, opened.layout)
        boxes = self._options.boxes
        image, layout = taken(frame, opened.layout, self._model.signature.preprocessing)
        self._stream.submit(
            image,
            source=source.label,
            tag=shot,
            layout=layout,
            boxes=boxes,
            margin=self._options.margin,
            keys=None if boxes is None else range(len(boxes)),
        )

    def _ended(self, feed: Feed) -> None:
        """Finish the stream once no more frames will come; one that fails ends all."""
        with self._lock:
            if feed.error is not None:
                for other in self._feeds:
                    other.stop()
            if feed.error is not None or all(other.done or other is feed for other in self._feeds):
                self._stream.finish()
            feed.done = True

    def _alive(self) -> bool:
        """Return whether frames go through, or can be waited for: neither a reader nor the stream hangs."""
        now = time.monotonic()
        counts = self._stream.counts
        if counts.submitted == counts.delivered + sum(counts.dropped.values()):
            self._progress = now
        beats = [feed.beat for feed in self._feeds if feed.beat is not None and not feed.done]
        return all(now - beat < _HANGS for beat in [self._progress, *beats])

    def _say(self, notifier: Notifier) -> None:
        reconnects = {feed.source.label: feed.reconnects for feed in self._feeds}
        lines = self._stats.lines(self._stream.counts.dropped, reconnects)
        _to_stderr(lines)
        notifier.status("; ".join(lines))

    def _end(self) -> None:
        for feed in self._feeds:
            feed.stop()
        self._stream.close()
        until = time.monotonic() + _JOIN
        for feed in self._feeds:
            if feed.is_alive():
                feed.join(max(0.0, until - time.monotonic()))


@contextmanager
def _repeated(seconds: float | None, work: Callable[[], object]) -> Iterator[None]:
    """Do something every so many seconds while the block runs, in a thread; None: never."""
    ended = threading.Event()

    def repeat() -> None:
        while not ended.wait(seconds):
            work()

    thread = None if seconds is None else threading.Thread(target=repeat, name="mtl-stats", daemon=True)
    if thread is not None:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        with nullcontext() if thread is None else suppress(RuntimeError):
            if thread is not None:
                thread.join()


def _standard_input() -> int:
    if sys.stdin is None or sys.stdin.isatty():
        raise ImageError(f"{PIPE}: standard input is a terminal, or none; pipe raw frames into the command")
    return sys.stdin.fileno()


def _to_stderr(lines: Sequence[str]) -> None:
    with suppress(OSError):  # a terminal that went away
        sys.stderr.write("".join(f"{line}\n" for line in lines))
        sys.stderr.flush()
