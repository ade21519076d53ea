"""``mtl-infer``: predictions of a bundle on images, video files and cameras."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from mtl_deploy.runtime.console.command import parser, run_command
from mtl_deploy.runtime.console.visible import unread, visible
from mtl_deploy.runtime.files.output_file import placed
from mtl_deploy.runtime.images.files import images_in
from mtl_deploy.runtime.predictions.decoding import Prediction
from mtl_deploy.runtime.show.targets import show_targets
from mtl_deploy.runtime.show.video import CAMERA, is_video

from .cli_output import Document, PredictionTable
from .errors import ImageError, MtlError, OptionError
from .loading import load
from .model import Model

_DESCRIPTION = """\
Predict all tasks of a bundle on images, with one pass of the network per image, and show them in a picture. Video files and cameras
are read through OpenCV (pip install 'mtl-deploy[video]')."""

_EPILOG = """\
examples:
  mtl-infer model.mtl face.jpg
  mtl-infer model.mtl photos/ --tasks age,gender
      all images of a folder and below it, except hidden files; the other tasks are not computed
  mtl-infer model.mtl face.jpg --json
  mtl-infer model.mtl/separate/age.onnx face.jpg
      one graph
  mtl-infer model.mtl face.jpg --backend tensorrt
      on its engine, or not at all; without the option, a graph runs where no engine fits, with a warning
  mtl-infer model.mtl face.jpg --precision int8 --verbose
      says on standard error what runs: an INT8 graph on OpenVINO, where that is installed and faster, else on ONNX Runtime
  mtl-infer model.mtl street.jpg --show overlay.png
      a picture: classes with their legend, depth with its scale, normals, and the other tasks in words; of a folder: to a folder
  mtl-infer model.mtl street.mp4 --show out.mp4
  mtl-infer model.mtl camera:0 --show window
      a video or a camera, with the frame rate on each frame; q ends it

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
        nargs="+",
        type=Path,
        metavar="IMAGE",
        help="an image file, a folder of them, a video file, or camera:N",
    )
    made.add_argument(
        "--show", metavar="PATH", help="draw the predictions: to an image file, a folder, a video file, or window"
    )
    made.add_argument("-f", "--force", action="store_true", help="replace existing files at --show; never an input")
    made.add_argument("--json", action="store_true", help="print a JSON document instead of a table")
    made.add_argument("--tasks", metavar="NAME,...", help="only these tasks")
    made.add_argument("--precision", metavar="NAME", help="fp32 or fp16 (default: the fastest here)")
    made.add_argument(
        "--backend",
        metavar="NAME",
        help="tensorrt, onnxruntime or openvino (default: an engine where one fits, else a graph on one of the others)",
    )
    made.add_argument(
        "--provider", action="append", metavar="NAME", help="ONNX Runtime's execution providers, in order of preference"
    )
    made.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one per core)")
    made.add_argument(
        "-v", "--verbose", action="store_true", help="say on standard error which file runs on what, and why"
    )
    return made


def _infer(arguments: argparse.Namespace) -> int:
    videos = [path for path in arguments.images if is_video(path)]
    if videos and len(arguments.images) > 1:
        raise OptionError(f"{videos[0]}: pass a video or camera by itself")
    tasks = None if arguments.tasks is None else [name.strip() for name in arguments.tasks.split(",")]
    with load(
        arguments.model,
        precision=arguments.precision,
        backend=arguments.backend,
        providers=arguments.provider,
        tasks=tasks,
        threads=arguments.threads,
    ) as model:
        if arguments.verbose:
            sys.stderr.write(visible(_what_runs(model, arguments.model)) + "\n")
        channels = model.signature.preprocessing.channel_count
        files = [] if videos else list(_files(arguments.images, channels))
        targets = show_targets(arguments.show, files, videos, force=arguments.force)
        if videos:
            return _video(model, str(videos[0]), targets[0], as_json=arguments.json, force=arguments.force)
        return _images(model, files, targets, as_json=arguments.json, force=arguments.force)


def _what_runs(model: Model, path: str) -> str:
    file = path if model.artifact is None else model.artifact.path
    return f"{file} runs on {model.backend.details}: {model.why}"


def _images(model: Model, files: Sequence[Path], targets: Sequence[Path | None], *, as_json: bool, force: bool) -> int:
    """Predict image by image, and free each before the next: maps are large."""
    artifact = None if model.artifact is None else model.artifact.path
    names = [task.name for task in model.tasks]
    output = Document(sys.stdout, artifact, model.backend.details) if as_json else PredictionTable(sys.stdout, names)
    bad = 0
    stopped: str | None = "interrupted"
    try:
        for file, target in zip(files, targets, strict=True):
            try:
                predictions = model.predict(file)
                if target is not None:
                    _draw(model, file, predictions, target, force=force)
                output.add(file, predictions)
            except ImageError as error:  # noqa: PERF203 - one bad image must not end the run
                bad += 1
                output.leave_out(file, str(error))
                sys.stderr.write(f"left out: {visible(str(error))}\n")
        stopped = None
    except MtlError as error:
        stopped = str(error)
        raise
    finally:
        output.finish(stopped)
    return ImageError.exit_code if bad else 0


def _draw(model: Model, file: Path, predictions: dict[str, Prediction], target: Path, *, force: bool) -> None:
    from mtl_deploy.runtime.images.loading import original_pixels
    from mtl_deploy.runtime.show.picture import show

    picture = show(original_pixels(file, model.signature.preprocessing), predictions, model.tasks)
    with placed("--show", target, force=force) as beside:
        try:
            picture.save(beside)
        except ValueError as error:  # Pillow has no encoder for the suffix
            raise OptionError(f"--show {target}: {error}") from error


class _NobodyReadsError(Exception):
    """Ends a camera whose predictions nobody reads, and which nothing else would end."""


def _video(model: Model, source: str, target: Path | None, *, as_json: bool, force: bool) -> int:
    """Predict every frame and print one line per frame, so that another program can follow."""
    from mtl_deploy.runtime.show.video import play

    def told(number: int, predictions: Mapping[str, Prediction], rate: float) -> None:
        if as_json:
            tasks = {name: prediction.to_dict() for name, prediction in predictions.items()}
            entry = {"frame": number, "frames_per_s": round(rate, 2), "tasks": tasks}
            line = json.dumps(entry, ensure_ascii=False, allow_nan=False)
        else:
            said = "; ".join(f"{name} {prediction}" for name, prediction in predictions.items())
            line = visible(f"frame {number}, {rate:.1f} per second: {said}")
        sys.stdout.write(line + "\n")
        if unread(sys.stdout) and endless:
            raise _NobodyReadsError

    endless = target is None and source.startswith(CAMERA)
    try:
        count = play(model, source, target, told, force=force)
    except _NobodyReadsError:
        return 0
    if not as_json:
        sys.stdout.write(f"{count} frames\n")
    return 0


def _files(paths: Sequence[Path], channels: int) -> Iterator[Path]:
    for path in paths:
        yield from images_in(path, channels) if path.is_dir() else [path]
