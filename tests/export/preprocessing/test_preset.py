"""What the user says overrides a preset, and an export answers like the network behind its own transform."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import small_networks
import torch
import torchvision

from mtl_deploy.export.cli import main
from mtl_deploy.export.network.network import load_network
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.options.images import Stated
from mtl_deploy.export.preprocessing.preset import combine
from mtl_deploy.export.preprocessing.preset_torchvision import torchvision_preset
from mtl_deploy.runtime import load
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.errors import OptionError
from tests.export.preprocessing.presets import CONFIG, FAST, NETWORKS, PHOTO, RESNET, TASKS, timms


def test_options_go_before_a_preset_and_what_they_contradict_is_said() -> None:
    own = Stated(size=(96, 96), fit="letterbox", mean=(0.5, 0.5, 0.5), std=(0.229, 0.224, 0.225))
    preprocessing, notes = combine(own, torchvision_preset(RESNET))
    assert (preprocessing.height, preprocessing.fit, preprocessing.resize_to) == (96, "letterbox", ())
    assert preprocessing.mean == (0.5, 0.5, 0.5)
    assert notes == (
        f"preprocessing from --transform {RESNET}: interpolation bilinear",
        f"--image-size 96x96 overrides --transform {RESNET}, which says 224x224",
        f"--fit letterbox overrides --transform {RESNET}, which says crop",
        f"--mean 0.5,0.5,0.5 overrides --transform {RESNET}, which says 0.485,0.456,0.406",
    )
    _, notes = combine(Stated(resize_to=(256,)), torchvision_preset(RESNET))
    assert notes[1:] == (f"--resize-to 256 overrides --transform {RESNET}, which says 232",)
    with pytest.raises(OptionError, match="a crop has one size"):
        combine(Stated(size=(224, 224), multiple=32), torchvision_preset(RESNET))


@pytest.mark.parametrize("transform", [None, "torchvision:ViT_B_16_Weights.IMAGENET1K_SWAG_E2E_V1"])
def test_an_export_answers_as_the_network_behind_its_own_transform(
    transform: str | None, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the command to a prediction of a PIL image; the checkpoint's record where no transform is named."""
    monkeypatch.chdir(NETWORKS)
    network = small_networks.make()
    torch.save({"state_dict": network.state_dict(), "pretrained_cfg": CONFIG}, tmp_path / "weights.pt")
    options = [] if transform is None else ["--transform", transform]
    target = tmp_path / "a.mtl"
    assert (
        main(
            [
                str(tmp_path / "weights.pt"),
                "--model",
                "small_networks:make",
                *TASKS,
                *options,
                *FAST,
                "--json",
                "-o",
                str(target),
            ]
        )
        == 0
    )
    note, *others = json.loads(capsys.readouterr().out)["manifest"]["provenance"]["notes"]
    if transform is None:
        tensor = torch.from_numpy(timms(PHOTO, CONFIG).copy()).permute(2, 0, 1)[None] / 255
        tensor = (tensor - 0.5) / 0.25
        assert note.startswith("preprocessing from the checkpoint's pretrained_cfg (timm): image size 64x64, fit crop")
    else:
        tensor = torchvision.models.get_weight(transform.partition(":")[2]).transforms()(PHOTO)[None]
        assert note.startswith(
            f"preprocessing from --transform {transform}: image size 384x384, fit crop, resized to 384 ("
        )
    assert not any("preprocessing" in other or "overrides" in other for other in others)
    with torch.inference_mode():
        age = float(network.eval()(tensor)["age"])
    with load(target) as model:
        assert model.predict(PHOTO)["age"].value == pytest.approx(age, rel=1e-4, abs=1e-5)


def test_a_programs_size_goes_before_a_presets(tmp_path: Path) -> None:
    network = small_networks.make().eval()
    program = torch.export.export(
        network, (torch.zeros(2, 3, 24, 16),), dynamic_shapes=({0: torch.export.Dim("batch")},)
    )
    torch.export.save(program, tmp_path / "a.pt2")
    tasks = tuple(parse_task(text) for text in TASKS[1::2])
    loaded = load_network(Options(tmp_path / "a.pt2", tasks=tasks, stated=Stated(transform=RESNET)))
    assert (loaded.preprocessing.height, loaded.preprocessing.width) == (24, 16)
    assert loaded.notes[1] == "the program is for images of 24x16, which wins"
