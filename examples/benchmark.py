"""The article's ResNet-50 measured on this machine: all figures for it in docs/benchmarking.md.

    python examples/benchmark.py --out /tmp/article

Makes the checkpoint and the bundle if they are missing, with fresh weights, which are as good as trained ones for measuring time;
adds INT8 graphs with ranges from generated images, which are good only for measuring time. Then it shows and runs two commands:

1. one shared FP32 pass against the separate models, PyTorch's own ``forward``, eager and compiled, and OpenVINO if it is installed;
2. one shared INT8 pass against three separate FP32 models and the same PyTorch ``forward``.
"""

from __future__ import annotations

import argparse
import shlex
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from article import export, write_checkpoint

from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.runtime.bundle.manifest import open_bundle

IMAGES = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder for model.pt, model.mtl and the results")
    parser.add_argument("--depth", type=int, default=50, choices=(18, 34, 50), help="depth of the ResNet (default: 50)")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--duration", type=float, help="seconds per command (default: mtl-bench's own)")
    arguments = parser.parse_args()
    folder: Path = arguments.out
    prepare(folder, arguments.depth)
    common = [str(folder / "model.mtl"), "--threads", str(arguments.threads), "--checkpoint", str(folder / "model.pt")]
    if arguments.duration is not None:
        common += ["--duration", str(arguments.duration)]
    peers = ["--peers", "openvino"] if find_spec("openvino") else []
    run("bench", [*common, "--precision", "fp32", *peers, *results(folder, "fp32")])
    int8 = ["--precision", "int8-cpu", "--add", "separate@fp32", "--without", "concurrent,pytorch_compile@fp32"]
    run("bench", [*common, *int8, "--no-where", "--starts", "0", *results(folder, "int8")])


def prepare(folder: Path, depth: int) -> None:
    """Make the checkpoint, the bundle and its INT8 graphs if they are missing."""
    folder.mkdir(parents=True, exist_ok=True)
    if not (folder / "model.pt").is_file():
        write_checkpoint(folder / "model.pt", depth)
    if not (folder / "model.mtl").is_dir():
        export(folder)
    bundle = open_bundle(folder / "model.mtl")
    if not any(artifact.precision == "int8-cpu" for artifact in bundle.manifest.artifacts):
        size = bundle.manifest.signature.preprocessing
        np.save(folder / "images.npy", synthetic_images(IMAGES, size.height, size.width, seed=0))
        run(
            "calibration",
            [str(bundle.path), "--calibration-data", str(folder / "images.npy"), "--calibration-method", "minmax"],
        )


def results(folder: Path, name: str) -> list[str]:
    return ["--details", "--json", str(folder / f"{name}.json"), "--report", str(folder / f"{name}.html"), "--force"]


def run(room: str, arguments: list[str]) -> None:
    """Run a command of the toolkit in a separate process."""
    command = {"bench": "mtl-bench", "calibration": "mtl-calibrate"}[room]
    print(f"$ {command} {shlex.join(arguments)}", flush=True)
    code = f"import sys; from mtl_deploy.{room}.cli import main; sys.exit(main(sys.argv[1:]))"
    subprocess.run([sys.executable, "-c", code, *arguments], check=True)
    print(flush=True)


if __name__ == "__main__":
    main()
