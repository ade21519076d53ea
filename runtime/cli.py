"""``mtl-infer``: predictions of a bundle on images, video files and cameras."""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.bulk.box_file import boxes_by_file
from mtl_deploy.runtime.bulk.predicting import Box, Boxes, Outcome, outcomes
from mtl_deploy.runtime.bulk.writing import JsonLines, Writer, check_suffix, writer_of
from mtl_deploy.runtime.bundle.manifest import PRECISIONS
from mtl_deploy.runtime.console.command import parser, run_command
from mtl_deploy.runtime.console.completion import offer
from mtl_deploy.runtime.console.nouns import counted
from mtl_deploy.runtime.console.progress import Progress
from mtl_deploy.runtime.console.visible import visible
from mtl_deploy.runtime.files.output_file import check_outputs, placed
from mtl_deploy.runtime.images.files import images_in
from mtl_deploy.runtime.live.command import STANDARD_OUTPUT, play_command
from mtl_deploy.runtime.live.options import NAMES, add_live_options, play_options
from mtl_deploy.runtime.live.sources import Source, source_of, told_apart
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.serving.command import add_ray_options, label_command
from mtl_deploy.runtime.show.targets import show_targets

from .cli_operands import check_operands
from .cli_output import Document, PredictionTable
from .errors import ImageError, MtlError, OptionError
from .loading import load
from .model import Model
from .selection import BACKENDS, PROVIDERS

_DESCRIPTION = """\
Predict all tasks of a bundle on images, with one pass of the network per image, and show them in a picture. Videos, cameras and
network streams are read through OpenCV (pip install 'mtl-deploy[video]')."""

_EPILOG = """\
examples:
  mtl-infer model.mtl face.jpg
  mtl-infer model.mtl photos/ --tasks age,gender
      all images of a folder and below it, except hidden files; the other tasks are not computed
  mtl-infer model.mtl face.jpg --json
  mtl-infer model.mtl photos/ --output results.csv
      a row for each image; also .jsonl and .parquet
  mtl-infer model.mtl photos/ --ray --output labels/
      all images on a Ray cluster, one column per task in Parquet files
  mtl-infer model.mtl/separate/age.onnx face.jpg
      one graph
  mtl-infer model.mtl face.jpg --backend tensorrt
      on its engine, or not at all; without the option, a graph runs if no engine fits, with a warning
  mtl-infer model.mtl face.jpg --precision int8 --verbose
      says on standard error what runs: on x86 an INT8 graph runs on OpenVINO if it is installed, otherwise on ONNX Runtime
  mtl-infer model.mtl street.jpg --show overlay.png
      a picture: classes with their legend, depth with its scale, normals, and the other tasks in words; of a folder: to a folder
  mtl-infer model.mtl street.mp4 --show out.mp4
  mtl-infer model.mtl camera:0 --show window
      a video or a camera, with the frame rate on each frame; q ends it
  mtl-infer model.mtl rtsp://10.0.0.7/front http://10.0.0.8/back.mjpg --every race=10 --output - --stats 10
      several cameras in one batch, as JSON lines; one that is lost is opened again
  ffmpeg -i IN -f rawvideo -pix_fmt bgr24 - | mtl-infer model.mtl - --raw 1280x720:bgr
      raw frames from a pipe

An image that cannot be read is named on standard error and left out; the others are predicted one by one.
exit codes: 0 done; 1 the work failed; 2 input that cannot be used, even a single image; 130 interrupted
(143 by TERM, 129 by HUP)."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-infer`` and return its exit code."""
    return run_command(lambda: _infer(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-infer", _DESCRIPTION, _EPILOG)
    made.add_argument("model", metavar="MODEL", help="a bundle (NAME.mtl), or a graph or engine in one")
    made.add_argument(
        "images",
        nargs="*",
        metavar="IMAGE",
        help="an image file, a folder of them, or a video file, one or more; live: camera:N, /dev/videoN, rtsp:// or http://, a "
        "GStreamer pipeline, or - for raw frames",
    )
    made.add_argument(
        "--show", metavar="PATH", help="draw the predictions: to an image file, a folder, a video file, or window"
    )
    made.add_argument(
        "-f", "--force", action="store_true", help="replace existing files at --show and --output; never an input"
    )
    made.add_argument(
        "--json", action="store_true", help="print a JSON document instead of a table; for frames, JSON lines"
    )
    made.add_argument(
        "--output",
        metavar="FILE",
        help="one JSON line for each image or frame, to this file, or - (standard output); for images also .csv or .parquet",
    )
    made.add_argument("--tasks", metavar="NAME,...", help="only these tasks")
    precision = made.add_argument(
        "--precision",
        metavar="NAME",
        help=f"{', '.join(PRECISIONS[:-1])} or {PRECISIONS[-1]}; int8 is int8-cpu on a processor (default: the faster of fp32 and "
        "fp16 here)",
    )
    offer(precision, PRECISIONS)
    backend = made.add_argument(
        "--backend",
        metavar="NAME",
        help=f"{', '.join(BACKENDS[:-1])} or {BACKENDS[-1]} (default: an engine if one fits, otherwise a graph on one of the "
        "others)",
    )
    offer(backend, BACKENDS)
    provider = made.add_argument(
        "--provider", action="append", metavar="NAME", help="ONNX Runtime's execution providers, in order of preference"
    )
    offer(provider, PROVIDERS)
    made.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one per core)")
    made.add_argument(
        "--box",
        action="append",
        type=_box,
        metavar="X,Y,W,H",
        help="cut this box out of each image or frame, in its pixels; may be given several times",
    )
    made.add_argument(
        "--boxes",
        metavar="FILE",
        help='cut out of each image the boxes that this file has for it: JSON lines, {"image": "a.jpg", "boxes": [[x, y, width, '
        "height]]}, or CSV with the columns image,x,y,width,height",
    )
    made.add_argument(
        "--margin", type=float, default=0.0, metavar="SHARE", help="share of a box's size to cut out around it"
    )
    made.add_argument("--layout", metavar="NAME", help="rgb, bgr or gray: the colours in .npy files (default: rgb)")
    made.add_argument(
        "-v", "--verbose", action="store_true", help="say on standard error which file runs on what, and why"
    )
    add_live_options(made)
    add_ray_options(made)
    return made


def _box(text: str) -> Box:
    try:
        found = tuple(map(float, text.split(",")))
    except ValueError:
        found = ()
    if len(found) != 4 or not all(map(math.isfinite, found)) or min(found[2:]) <= 0:
        raise argparse.ArgumentTypeError(f"{text}: write X,Y,WIDTH,HEIGHT in pixels, such as 420,96,180,210")
    return found


def _infer(arguments: argparse.Namespace) -> int:
    tasks = None if arguments.tasks is None else [name.strip() for name in arguments.tasks.split(",")]
    if arguments.ray:
        return label_command(arguments, tasks)
    sources = _sources(arguments.model, arguments.images)
    _check_options(arguments, sources)
    show = None if arguments.show is None else Path(arguments.show)
    options = play_options(arguments, show, arguments.box)
    named = {} if arguments.layout is None else {"layout": arguments.layout}
    loading: dict[str, Any] = {
        "precision": arguments.precision,
        "backend": arguments.backend,
        "providers": arguments.provider,
        "tasks": tasks,
        "threads": arguments.threads,
        **named,
    }
    with load(arguments.model, **loading) as model:
        if arguments.verbose:
            sys.stderr.write(visible(_what_runs(model, arguments.model)) + "\n")
        channels = model.signature.preprocessing.channel_count
        files = [] if sources else list(_files(map(Path, arguments.images), channels))
        videos = [Path(source.text) for source in sources]
        targets = show_targets(arguments.show, files, videos, force=arguments.force)
        if sources:
            return play_command(model, sources, options, output=arguments.output, as_json=arguments.json)
        return _images(model, files, targets, arguments)


def _what_runs(model: Model, path: str) -> str:
    file = path if model.artifact is None else model.artifact.path
    return f"{file} runs on {model.backend.details}: {model.why}"


def _sources(model: str, images: Sequence[str]) -> list[Source]:
    """Return the videos and live sources; either all that is named is of these, or nothing."""
    check_operands(model, images)
    found = [source_of(text) for text in images]
    sources = [source for source in found if source is not None]
    if sources and len(sources) < len(found):
        raise OptionError(f"{sources[0].label}: pass it by itself, without images beside it")
    return told_apart(sources)


def _check_options(arguments: argparse.Namespace, sources: Sequence[Source]) -> None:
    """Refuse options that would have no effect."""
    if not (math.isfinite(arguments.margin) and arguments.margin >= 0):
        raise OptionError(f"--margin {arguments.margin:g}: give a share of a box's size, 0 or more, such as 0.2")
    if arguments.box is not None and arguments.boxes is not None:
        raise OptionError("--box and --boxes: give one of the two")
    boxed = arguments.box is not None or arguments.boxes is not None
    if boxed and arguments.show is not None:
        raise OptionError("--show: draws predictions of whole images; leave --box out, or --show")
    if arguments.margin and not boxed:
        raise OptionError(f"--margin {arguments.margin:g}: is cut out around boxes, and there are none; give --box")
    if sources and arguments.boxes is not None:
        raise OptionError(
            f"--boxes {arguments.boxes}: of images; a video or live source takes --box, the same for all frames"
        )
    if sources and arguments.layout is not None:
        raise OptionError(
            f"--layout {arguments.layout}: for .npy files; of a pipe it is part of --raw, a video says its own"
        )
    if not sources:
        given = next((name for name in NAMES if getattr(arguments, name) is not None), None)
        if given is not None:
            raise OptionError(f"--{given}: for videos and live sources; {arguments.images[0]} is taken for images")
        if arguments.output not in (None, STANDARD_OUTPUT):
            check_suffix(Path(arguments.output))


def _images(model: Model, files: Sequence[Path], targets: Sequence[Path | None], arguments: argparse.Namespace) -> int:
    """Predict images, and print or write each as it comes: maps are large."""
    began = time.perf_counter()
    found = outcomes(model, files, _boxes(files, arguments), arguments.margin)
    with _images_output(model, files, arguments) as (output, to_file), closing(found):
        progress = Progress(quiet=not to_file)
        done = bad = 0
        stopped: str | None = "interrupted"
        try:
            for outcome in found:
                target = targets[done]
                done += 1
                shown = outcome if target is None else _drawn(model, outcome, target, force=arguments.force)
                output.add(shown)
                if shown.error is not None:
                    bad += 1
                    sys.stderr.write(f"left out: {visible(str(shown.error))}\n")
                rate = done / (time.perf_counter() - began)
                if done % 10 == 0 or done == len(files):
                    progress.update(f"{done} of {len(files)} images, {rate:.1f} per second")
                del outcome, shown  # maps are large: free them before the next are made
            stopped = None
        except MtlError as error:
            stopped = str(error)
            raise
        finally:
            progress.update("")
            output.finish(stopped)
    if to_file:
        rate = len(files) / (time.perf_counter() - began)
        sys.stdout.write(f"{counted(len(files), 'image')}, {bad} left out, {rate:.1f} per second\n")
    return ImageError.exit_code if bad else 0


@contextmanager
def _images_output(
    model: Model, files: Sequence[Path], arguments: argparse.Namespace
) -> Iterator[tuple[Writer | Document | PredictionTable, bool]]:
    """Yield where predictions go, and whether that is a file; it is put in its place once it is whole."""
    if arguments.output not in (None, STANDARD_OUTPUT):
        path = Path(arguments.output)
        check_outputs("--output", [path], files, force=arguments.force)
        with placed("--output", path, force=arguments.force) as beside:
            yield writer_of(beside, model.tasks, boxed=arguments.box is not None or arguments.boxes is not None), True
    elif arguments.output is not None:
        yield JsonLines(sys.stdout, own=False), False
    elif arguments.json:
        artifact = None if model.artifact is None else model.artifact.path
        yield Document(sys.stdout, artifact, model.backend.details), False
    else:
        yield PredictionTable(sys.stdout, [task.name for task in model.tasks]), False


def _boxes(files: Sequence[Path], arguments: argparse.Namespace) -> Boxes | None:
    """Return what gives the boxes in an image: those of a file, or the same for all."""
    if arguments.boxes is not None:
        return boxes_by_file(Path(arguments.boxes), files)
    given: Sequence[Box] | None = arguments.box
    return None if given is None else lambda _: given


def _drawn(model: Model, outcome: Outcome, target: Path, *, force: bool) -> Outcome:
    """Draw an image, unless it has no predictions."""
    if outcome.error is None:
        try:
            _draw(model, outcome.file, outcome.predictions, target, force=force)
        except ImageError as error:
            return Outcome(outcome.file, {}, error=error)
    return outcome


def _draw(model: Model, file: Path, predictions: Mapping[str, Prediction], target: Path, *, force: bool) -> None:
    from mtl_deploy.runtime.images.loading import original_pixels
    from mtl_deploy.runtime.show.picture import show

    picture = show(original_pixels(file, model.signature.preprocessing), predictions, model.tasks)
    with placed("--show", target, force=force) as beside:
        try:
            picture.save(beside)
        except ValueError as error:  # Pillow has no encoder for the suffix
            raise OptionError(f"--show {target}: {error}") from error


def _files(paths: Iterable[Path], channels: int) -> Iterator[Path]:
    for path in paths:
        yield from images_in(path, channels) if path.is_dir() else [path]
