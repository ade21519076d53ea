"""Public networks and the files that their training scripts write, rebuilt small: ``--model wild:fairface``.

``SIZES`` holds the image's height and width where they are not 64x64, ``CHANNELS`` those of each input where it is not one of
three; ``TASKS`` and ``OPTIONS`` are what a newcomer writes; :func:`checkpoint` writes the file.
"""

from __future__ import annotations

import warnings
from argparse import Namespace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import wild_detectors
import wild_driving
import wild_faces
import wild_maps
import wild_traps
from torch import nn
from wild_tasks import OPTIONS, TASKS

__all__ = ["CHANNELS", "OPTIONS", "SIZES", "TASKS", "checkpoint", "inputs", "trained"]

fairface = wild_faces.FairFace
hopenet = wild_faces.HopeNet
mivolo = wild_faces.MiVOLO
sixdrepnet = wild_faces.SixDRepNet
pfld = wild_faces.PFLD
coral = wild_faces.Coral
ssrnet = wild_faces.SSRNet
utkface = wild_faces.Squeezing
celeba = wild_faces.Attributes
gaze = wild_faces.Gaze
twinlitenet = wild_maps.TwinLiteNet
refinenet = wild_maps.RefineNet
mtinet = wild_maps.MTINet
mtan = wild_maps.MTAN
segformer = wild_maps.SegFormer
rgbd = wild_maps.RGBD
rgb_and_depth = partial(wild_maps.RGBD, inputs=2)
flow_bare = wild_maps.Flow
retinaface = partial(wild_detectors.RetinaFace, cfg={"name": "mobilenet0.25", "steps": (8, 16)}, phase="test")
yolop, yolopv2 = wild_driving.YOLOP, wild_driving.YOLOPv2
hybridnets = wild_driving.HybridNets
yolopose = wild_detectors.YOLOPose
scrfd = wild_detectors.SCRFD
fairmot = wild_detectors.FairMOT
detr = wild_detectors.DETR
maskrcnn = wild_detectors.MaskRCNN
baked = wild_traps.Baked
baked_constant = wild_traps.BakedConstant
mixing = wild_traps.Mixing
stateless = wild_traps.Stateless
dropping = wild_traps.Dropping
noisy = wild_traps.Noisy
dataclass = partial(wild_traps.Contained, "dataclass")
namespace = partial(wild_traps.Contained, "namespace")
fields = partial(wild_traps.Contained, "fields")
nested = wild_traps.Nested
extra_state = wild_traps.ExtraState
tied = wild_traps.Tied
padded_pool = wild_traps.PaddedPool
deformable = wild_traps.Deformable
odd_pool = wild_traps.OddPool
branching = wild_traps.Branching
spectral = wild_traps.Spectral
silent = wild_traps.Silent
gray, rgba, six_channels = (partial(wild_traps.Wide, channels) for channels in (1, 4, 6))
pair = wild_traps.Pair
sized = wild_traps.Sized


def flow() -> nn.Module:
    """Return a network for two images whose other arguments are given here."""
    network = wild_maps.Flow()
    network.forward = partial(network.forward, attn_type="swin", corr_radius_list=[2])  # type: ignore[method-assign]
    return network


def sized_partial() -> nn.Module:
    """Return a network whose size is given here."""
    network = wild_traps.Sized()
    network.forward = partial(network.forward, out_size=(32, 32))  # type: ignore[method-assign]
    return network


SIZES = {
    "pfld": (56, 56),
    "coral": (120, 120),
    "gaze": (36, 60),
    "twinlitenet": (72, 128),
    "yolop": (64, 96),
    "yolopv2": (64, 96),
    "hybridnets": (128, 256),
    "refinenet": (60, 80),
    "rgbd": (48, 64),
    "odd_pool": (64, 64),
    "rgb_and_depth": (48, 64),
}
CHANNELS: dict[str, tuple[int, ...]] = {
    "mivolo": (6,),
    "coral": (1,),
    "rgbd": (4,),
    "rgb_and_depth": (3, 1),
    "flow": (3, 3),
    "flow_bare": (3, 3),
    "gray": (1,),
    "rgba": (4,),
    "six_channels": (6,),
    "pair": (3, 3),
}
_ARGUMENTS: dict[str, tuple[object, ...]] = {"flow_bare": ("swin", [2]), "sized": ((32, 32),)}


def inputs(name: str, batch: int = 2, *, seed: int = 3) -> tuple[Any, ...]:
    """Return what a network takes: one or several tensors, then its other arguments. No two images are alike in brightness."""
    generator = torch.Generator().manual_seed(seed)
    size = SIZES.get(name, (64, 64))
    if name == "gaze":
        shapes: tuple[tuple[int, ...], ...] = ((batch, 1, *size), (batch, 2))
    else:
        shapes = tuple((batch, channels, *size) for channels in CHANNELS.get(name, (3,)))
    tensors = []
    for shape in shapes:
        level = torch.linspace(-1, 1.5, batch).reshape(-1, *[1] * (len(shape) - 1))
        tensors.append((torch.randn(shape, generator=generator) + level) * (1 + level.abs()))
    return (*tensors, *_ARGUMENTS.get(name, ()))


def trained(name: str) -> nn.Module:
    """Return a network in eval mode as training leaves it: every BatchNorm has seen something."""
    torch.manual_seed(len(name))
    network: nn.Module = globals()[name]()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None and module.running_var is not None:
            nn.init.normal_(module.running_mean, std=0.2)
            nn.init.uniform_(module.running_var, 0.2, 1.5)
            nn.init.uniform_(module.weight, 0.7, 1.4)
    network.eval()
    return network


def checkpoint(name: str, folder: Path) -> Path:
    """Write the file that a network's training script writes, under the name that it has there; return its path."""
    network = trained(name)
    path = folder / _FILES.get(name, "model.pt")
    if name == "yolopv2":  # traced, and given away as that alone
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch deprecates what it still reads
            torch.jit.trace(network, inputs(name, 1), strict=False).save(path)
        return path
    state = network.state_dict()
    if name == "segformer":
        from safetensors.torch import save_file

        save_file(state, path, metadata={"format": "pt"})
        return path
    torch.save(_content(name, network, state), path)
    return path


_FILES = {
    "fairface": "res34_fair_align_multi_7_20190809.pt",
    "hopenet": "hopenet_robust_alpha1.pkl",
    "mivolo": "model_imdb_cross_person_4.22_99.46.pth.tar",
    "sixdrepnet": "_epoch_30.tar",
    "pfld": "checkpoint_epoch_500.pth.tar",
    "utkface": "epoch=9-step=1000.ckpt",
    "twinlitenet": "best.pth",
    "refinenet": "ExpNYUD_three.ckpt",
    "segformer": "model.safetensors",
    "retinaface": "mobilenet0.25_Final.pth",
    "yolop": "End-to-end.pth",
    "yolopv2": "yolopv2.pt",
    "hybridnets": "hybridnets-d3_10_1000_best.pth",
    "yolopose": "yolov8n-pose.pt",
    "scrfd": "SCRFD_500M_KPS.pth",
    "fairmot": "fairmot_dla34.pth",
    "detr": "detr-r50-e632da11.pth",
    "maskrcnn": "model_25.pth",
}


def _content(name: str, network: nn.Module, state: dict[str, Any]) -> object:
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9).state_dict() if state else {}
    parallel = {f"module.{key}": value for key, value in state.items()}
    averaged = {
        key: value * 0.9 if value.is_floating_point() else value
        for key, value in state.items()
        if isinstance(value, torch.Tensor)
    }
    arguments = Namespace(lr=1e-4, batch_size=2, output_dir=Path("out"))
    contents: dict[str, object] = {
        "mivolo": {
            "epoch": 4,
            "arch": "mivolo_d1_224",
            "state_dict": {**state, "fds.running_mean": torch.zeros(8)},
            "min_age": 1,
            "max_age": 95,
            "avg_age": 48.0,
            "no_gender": False,
            "with_persons_model": True,
        },
        "sixdrepnet": {"epoch": 29, "model_state_dict": state, "optimizer_state_dict": optimizer},
        "pfld": {"epoch": 500, "pfld_backbone": state, "auxiliarynet": {"conv1.weight": torch.zeros(8, 8, 3, 3)}},
        "utkface": {
            "epoch": 9,
            "pytorch-lightning_version": "2.4.0",
            "state_dict": {
                **{f"model.{key}": value for key, value in state.items()},
                "criterion.weight": torch.ones(5),
            },
            "optimizer_states": [optimizer],
            "hyper_parameters": {"lr": 1e-3},
        },
        "celeba": {"epoch": 3, "arch": "resnet50", "state_dict": state, "state_dict_ema": averaged, "metric": 91.2},
        "gaze": {"model": state, "config": "mode: GazeEstimationMethod.MPIIGaze\n"},
        "twinlitenet": parallel,
        "refinenet": {"state_dict": state, "epoch_start": 100},
        "mtinet": {
            "optimizer": optimizer,
            "model": parallel,
            "epoch": 80,
            "best_result": {"multi_task_performance": 1.2},
        },
        "flow": {"model": state, "optimizer": optimizer, "step": 100000, "epoch": 5},
        "rgbd": {"epoch": 499, "state_dict": state, "optimizer": optimizer},
        "retinaface": parallel,
        "yolop": {"epoch": 240, "model": "YOLOP", "state_dict": state, "optimizer": optimizer},
        "hybridnets": {
            "epoch": 10,
            "step": 1000,
            "best_fitness": np.array([0.71]),
            "model": state,
            "optimizer": optimizer,
            "scaler": {"scale": 65536.0, "growth_factor": 2.0, "backoff_factor": 0.5, "growth_interval": 2000},
        },
        "yolopose": {"epoch": -1, "model": None, "ema": network.half(), "updates": 9, "train_args": {"imgsz": 640}},
        "scrfd": {"meta": {"epoch": 640, "config": "model = dict(...)"}, "state_dict": state, "optimizer": optimizer},
        "fairmot": {"epoch": 30, "state_dict": state, "optimizer": optimizer},
        "detr": {"model": state, "optimizer": optimizer, "lr_scheduler": {"step_size": 200}, "args": arguments},
        "maskrcnn": {"model": state, "optimizer": optimizer, "lr_scheduler": {}, "args": arguments, "epoch": 25},
    }
    return contents.get(name, state)
