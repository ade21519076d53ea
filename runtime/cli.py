"""``mtl-infer``: predictions of a bundle on images, video files and cameras."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from .console import parser, run_command, table
from .decoding import Prediction
from .errors import ImageError, OptionError
from .loading import load
from .model import Model
from .video import SUFFIXES as VIDEOS
from .video import WINDOW, is_video

JSON_VERSION = 1
SUFFIXES = frozenset((".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"))

_DESCRIPTION = """\
Predict all tasks of a bundle on images, with one pass of the network an image; and show them in a picture. Video files and cameras
are read through OpenCV (pip install 'mtl-deploy[video]')."""

_EPILOG = """\
examples:
  mtl-infer model.mtl face.jpg
  mtl-infer model.mtl photos/ --tasks age,gender
      all images of a folder and below it; the work of the other tasks is not done
  mtl-infer model.mtl face.jpg --json
  mtl-infer model.mtl/separate/age.onnx face.jpg
      one graph
  mtl-infer model.mtl face.jpg --backend tensorrt
      on its engine, or not at all; without the option a graph runs where no engine fits, with a warning
  mtl-infer model.mtl street.jpg --show overlay.png
      a picture: classes with their legend, depth with its scale, normals, and what the other tasks say; of a folder: to a folder
  mtl-infer model.mtl street.mp4 --show out.mp4
  mtl-infer model.mtl camera:0 --show window
      a video or a camera, with the frame rate on each frame; q ends it

An image that cannot be read is named on standard error and left out; the others are predicted.
exit codes: 0 done; 1 the work failed; 2 input that cannot be used, a single image among it; 130 interrupted."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run ``mtl-infer`` and return its exit code."""
    return run_command(lambda: _infer(_parser().parse_args(arguments)))


def _parser() -> argparse.ArgumentParser:
    made = parser("mtl-infer", _DESCRIPTION, _EPILOG)
    made.add_argument("model", metavar="MODEL", help="a bundle (NAME.mtl), or a graph or engine of one")
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
    made.add_argument("--json", action="store_true", help="print a JSON document instead of a table")
    made.add_argument("--tasks", metavar="NAME,...", help="only these tasks")
    made.add_argument("--precision", metavar="NAME", help="fp32 or fp16 (default: the fastest here)")
    made.add_argument("--backend", metavar="NAME", help="tensorrt or onnxruntime (default: an engine where one fits)")
    made.add_argument("--provider", action="append", metavar="NAME", help="ONNX Runtime's, in order of preference")
    made.add_argument("--threads", type=int, metavar="N", help="threads inside an operator (default: one a core)")
    return made


def _infer(arguments: argparse.Namespace) -> int:
    videos = [path for path in arguments.images if is_video(path)]
    if videos and len(arguments.images) > 1:
        raise OptionError(f"{videos[0]}: pass a video or camera alone")
    files = [] if videos else list(_files(arguments.images))
    target = _target(arguments.show, files, videos)
    tasks = None if arguments.tasks is None else [name.strip() for name in arguments.tasks.split(",")]
    with load(
        arguments.model,
        precision=arguments.precision,
        backend=arguments.backend,
        providers=arguments.provider,
        tasks=tasks,
        threads=arguments.threads,
    ) as model:
        if videos:
            return _video(model, str(videos[0]), target, as_json=arguments.json)
        found: dict[Path, dict[str, Prediction]] = {}
        bad: dict[Path, str] = {}
        for file in files:
            try:
                found[file] = model.predict(file)
                if target is not None:
                    _draw(model, file, found[file], target / _name(file, files) if len(files) > 1 else target)
            except ImageError as error:  # noqa: PERF203 - one bad image must not end the run
                bad[file] = str(error)
                sys.stderr.write(f"left out: {error}\n")
        sys.stdout.write(_json(model, found, bad) if arguments.json else _table(model, found))
    return ImageError.exit_code if bad else 0


def _target(show: str | None, files: Sequence[Path], videos: Sequence[Path]) -> Path | None:
    """Return where pictures go, once it is known that they can; None for nowhere."""
    if show is None:
        return None
    target = Path(show)
    if videos:
        if show != WINDOW and target.suffix.lower() not in VIDEOS:
            raise OptionError(f"--show {show}: a video is shown in another video file, such as out.mp4, or in a window")
        return target
    if show == WINDOW:
        raise OptionError("--show window: for a video or a camera; pictures go to a file, such as overlay.png")
    if len(files) == 1 and target.suffix.lower() not in SUFFIXES:
        raise OptionError(f"--show {show}: use the suffix of an image, such as .png")
    if len(files) > 1 and target.suffix.lower() in SUFFIXES:
        raise OptionError(f"--show {show}: {len(files)} images go to a folder; name one")
    folder = target.parent if len(files) == 1 else target
    try:
        folder.mkdir(parents=len(files) > 1, exist_ok=True)
    except OSError as error:
        raise OptionError(f"--show {show}: {error.strerror or error}") from error
    return target


def _name(file: Path, files: Sequence[Path]) -> str:
    """Return the name of a file's picture: its own, with its folder's where two are called alike."""
    alike = sum(other.stem == file.stem for other in files) > 1
    parts = [part for part in file.with_suffix("").parts if part not in ("/", "..")] if alike else [file.stem]
    return "_".join(parts) + ".png"


def _draw(model: Model, file: Path, predictions: dict[str, Prediction], target: Path) -> None:
    from .images import original_pixels
    from .show import show

    picture = show(original_pixels(file), predictions, model.tasks)
    try:
        picture.save(target)
    except (OSError, ValueError) as error:
        raise OptionError(f"--show {target}: {getattr(error, 'strerror', None) or error}") from error


def _video(model: Model, source: str, target: Path | None, *, as_json: bool) -> int:
    """Predict every frame; a line a frame, so that another program can follow."""
    from .video import play

    def told(number: int, predictions: Mapping[str, Prediction], rate: float) -> None:
        if as_json:
            tasks = {name: prediction.to_dict() for name, prediction in predictions.items()}
            line = json.dumps({"frame": number, "frames_per_s": round(rate, 2), "tasks": tasks}, ensure_ascii=False)
        else:
            said = "; ".join(f"{name} {prediction}" for name, prediction in predictions.items())
            line = f"frame {number}, {rate:.1f} a second: {said}"
        sys.stdout.write(line + "\n")

    count = play(model, source, target, told)
    if not as_json:
        sys.stdout.write(f"{count} frames\n")
    return 0


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if not path.is_dir():
            yield path
            continue
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES)
        if not images:
            raise OptionError(f"{path}: no image in this folder or below (looked for {', '.join(sorted(SUFFIXES))})")
        yield from images


def _table(model: Model, found: dict[Path, dict[str, Prediction]]) -> str:
    if not found:
        return ""
    names = [task.name for task in model.tasks]
    rows = [[str(file), *(str(row[name]) for name in names)] for file, row in found.items()]
    return table(["image", *names], rows) + "\n"


def _json(model: Model, found: dict[Path, dict[str, Prediction]], bad: dict[Path, str]) -> str:
    document = {
        "schema_version": JSON_VERSION,
        "artifact": None if model.artifact is None else model.artifact.path,
        "backend": model.backend.details,
        "predictions": [
            {"image": str(file), "tasks": {name: prediction.to_dict() for name, prediction in row.items()}}
            for file, row in found.items()
        ],
        "left_out": [{"image": str(file), "reason": reason} for file, reason in bad.items()],
    }
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"
