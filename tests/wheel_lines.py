"""Prints the lines that install a wheel on a device: ``python -m tests.wheel_lines dist``, after ``make wheel``."""

from __future__ import annotations

import sys
from pathlib import Path

DEVICES = (
    ("a processor", "[runtime]", ""),
    ("a processor, through OpenVINO: INT8 on x86", "[openvino]", ""),
    ("a GPU, through ONNX Runtime and CUDA", "[runtime-gpu]", ""),
    ("an RTX machine, with engines", "[tensorrt-rtx]", ""),
    ("a server with a CUDA 13 driver, with engines", "[tensorrt]", ""),
    ("a server with a CUDA 12 driver, with engines", "[tensorrt-cu12]", ""),
    ("a Jetson: TensorRT comes with JetPack", "", "'cuda-bindings<13'"),
)
"""For each kind of device: what it is, the extra, and what else to install."""


def lines(wheel: str) -> list[str]:
    """Return one line for each kind of device."""
    written = [" ".join(filter(None, (f"pip install '{wheel}{extra}'", others))) for _, extra, others in DEVICES]
    width = max(map(len, written))
    return [f"{line:<{width}}  # {device}" for line, (device, *_) in zip(written, DEVICES, strict=True)]


def main(folder: Path) -> None:
    """Print what to copy, and what to run there."""
    (wheel,) = folder.glob("*.whl")
    print(
        f"{wheel}: copy it to the device with the bundle, and install it there, in a virtual environment, with one of these:"
    )
    print("\n".join(f"  {line}" for line in lines(wheel.name)))
    print(
        "Add ,images to the brackets where the application passes paths or PIL images, ,video for videos and cameras."
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]))
