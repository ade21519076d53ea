"""The sound files that the attack on readers damages: small, but of every kind, and bundles as the commands write them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from tests.conftest import write_tiny_bundle
from tests.networks.dense_bundle import write_dense_bundle

TASKS = """
[[task]]
name = "age"
kind = "regression"
unit = "years"
scale = 100.0
output = 0

[[task]]
name = "gender"
kind = "binary"
labels = ["male", "female"]
threshold = 0.4

[[task]]
name = "race"
kind = "multiclass"
labels = ["a", "b", "c", "d"]

[[task]]
name = "depth"
kind = "depth"
unit = "metres"
valid_range = [0.1, 10.0]
"""


def make_bases(folder: Path) -> None:
    """Write all of them; takes PyTorch and a real export with INT8 graphs."""
    folder.mkdir(parents=True)
    write_tiny_bundle(folder / "tiny.mtl")
    write_dense_bundle(folder / "dense.mtl")
    _pictures(folder)
    rows = [f"{file.name},{20 + place},{place % 2},{'abc'[place % 3]}" for place, file in enumerate(photos(folder))]
    (folder / "labels.csv").write_text("\n".join(["file,age,gender,race", *rows]))
    _checkpoints(folder)
    _exported(folder)
    (folder / "tasks.toml").write_text(TASKS)
    (folder / "list.txt").write_text("# images\n" + "\n".join(f"photos/{file.name}" for file in photos(folder)))
    random = np.random.default_rng(0)
    images = random.integers(0, 256, (3, 6, 5, 3), dtype=np.uint8)
    labels: dict[str, Any] = {"labels/age": np.array([1.0, np.nan, 3.0]), "labels/race": np.array(["a", "b", "c"])}
    np.savez(folder / "images.npz", images=images, **labels)
    np.save(folder / "images.npy", images)
    from tests.bench.documents import document

    (folder / "result.json").write_text(json.dumps(document()))


def photos(folder: Path) -> list[Path]:
    """Return the sound images of a folder of bases."""
    return sorted((folder / "photos").iterdir())


def _pictures(folder: Path) -> None:
    from PIL import Image

    (folder / "photos").mkdir()
    ramp = np.linspace(0, 255, 40 * 32 * 3).astype(np.uint8).reshape(40, 32, 3)
    colour = Image.fromarray(ramp)
    exif = Image.Exif()
    exif[0x0112] = 6
    colour.save(folder / "photos/a.png", exif=exif)
    colour.convert("P").save(folder / "photos/b.gif")
    colour.save(folder / "photos/c.jpg", exif=exif, progressive=True)
    colour.convert("CMYK").save(folder / "photos/d.jpg")
    colour.save(folder / "photos/e.webp")
    colour.save(folder / "photos/f.bmp")
    colour.save(folder / "photos/g.ppm")
    for name, how in (("h", None), ("i", "tiff_lzw"), ("j", "jpeg"), ("k", "tiff_adobe_deflate"), ("l", "group4")):
        picture = colour.convert("1") if how == "group4" else colour
        picture.save(folder / f"photos/{name}.tiff", compression=how)
    Image.fromarray(np.linspace(0, 65535, 40 * 32).astype(np.uint16).reshape(40, 32)).save(folder / "photos/m.png")
    colour.save(folder / "photos/n.webp", lossless=True, exif=exif)
    (folder / "strangers").mkdir()
    for name in ("eps", "dds", "ico", "pcx", "sgi", "tga", "icns", "pdf", "jp2"):
        try:
            colour.save(folder / f"strangers/{name}.png", format={"jp2": "JPEG2000"}.get(name, name.upper()))
        except (OSError, KeyError, ValueError):  # noqa: PERF203 - Pillow was built without it
            (folder / f"strangers/{name}.png").unlink(missing_ok=True)


def _checkpoints(folder: Path) -> None:
    import torch
    from safetensors.torch import save_file

    from tests.networks.small_networks import Shared

    network = Shared().eval()
    state = network.state_dict()
    (folder / "checkpoints").mkdir()
    torch.save(state, folder / "checkpoints/weights.pt")
    torch.save({"model": state, "epoch": 3}, folder / "checkpoints/legacy.pt", _use_new_zipfile_serialization=False)
    save_file({name: tensor.clone() for name, tensor in state.items()}, folder / "checkpoints/weights.safetensors")
    program = torch.export.export(network, (torch.zeros(1, 3, 32, 32),), strict=False)
    torch.export.save(program, folder / "checkpoints/program.pt2")


def _exported(folder: Path) -> None:
    """Export a program, calibrate it on the photographs, measure its graphs, and pretend that an engine was built."""
    from mtl_deploy.bench.cli import main as bench
    from mtl_deploy.calibration.cli import main as calibrate
    from mtl_deploy.export.cli import main as export

    bundle = folder / "whole.mtl"
    declared = [
        "--task",
        "age=regression:years",
        "--task",
        "gender=binary:male,female",
        "--task",
        "race=multiclass:a,b,c,d",
    ]
    options = ["--output", str(bundle), "--threads", "1", "--engine", "none", "--quiet"]
    if (code := export([str(folder / "checkpoints/program.pt2"), *declared, *options])) != 0:
        raise RuntimeError(f"the export of the attack's own network ended with {code}")
    data = ["--calibration-data", str(folder / "photos"), "--labels", str(folder / "labels.csv")]
    code = calibrate([str(bundle), *data, "--threads", "1", "--quiet", "--no-measure"])
    code = code or bench([str(bundle), "--record", "--threads", "1", "--quiet"])
    if code != 0:
        raise RuntimeError(f"the calibration of the attack's own network ended with {code}")
    file = bundle / "manifest.json"
    manifest = json.loads(file.read_text())
    for artifact in manifest["artifacts"]:
        if artifact["precision"] == "int8":  # as a search for layers within a budget leaves it
            artifact["details"]["search"] = {"latency": 1.25, "summary": "met", "budgets": {"age": 0.5, "gender": 0.01}}
    engine = next(one for one in manifest["artifacts"] if one["precision"] == "fp16" and one["role"] == "shared")
    record = {
        "library": "tensorrt", "version": "10.3.0.26", "compute_capabilities": ["8.6"], "gpu": None, "driver": None,
        "hardware_compatibility": "none", "version_compatible": False, "batch_opt": 8, "source": engine["path"],
        "source_sha256": engine["sha256"], "verified": "no GPU", "layers": {"fp16": 20}, "warnings": [],
    }  # fmt: skip
    made = engine | {"path": "fp16.trt", "backend": "tensorrt", "batch_max": 8, "opset": None, "details": record}
    (bundle / "fp16.trt").write_bytes((bundle / engine["path"]).read_bytes())
    manifest["artifacts"].append(made)
    file.write_text(json.dumps(manifest))
