"""The scenes example: what is rendered is exact, files are as documented, and a few steps of training lower every loss."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mtl_deploy.export.network.task_file import read_task_file
from mtl_deploy.export.networks import refinenet

EXAMPLE = Path(__file__).parents[2] / "examples" / "scenes"
sys.path.append(str(EXAMPLE))  # behind the digits example, which has a ``train``, too

import frames as data  # noqa: E402
import objectives  # noqa: E402
import rendering  # noqa: E402
import shapes  # noqa: E402
import textures  # noqa: E402


def module_of(name: str) -> ModuleType:
    """Import a script under a name of its own: the digits example has a ``train``, too."""
    spec = importlib.util.spec_from_file_location(f"scenes_{name}", EXAMPLE / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


train = module_of("train")
SEEDS = st.integers(0, 2**32 - 1)


def points_of(scene: rendering.Scene, depth: np.ndarray) -> np.ndarray:
    """Back-project depth to ``(H, W, 3)`` points in camera coordinates."""
    return scene.camera.rays() * depth[..., None]


def world(scene: rendering.Scene, points: np.ndarray) -> np.ndarray:
    return points @ scene.camera.rotation + scene.camera.position


def distance(shape: object, points: np.ndarray) -> np.ndarray:
    """How far ``(N, 3)`` points in the world are from a shape's surface, written anew, from its implicit form."""
    if isinstance(shape, shapes.Plane):
        return np.abs(points @ shape.normal - shape.offset)
    if isinstance(shape, shapes.Sphere):
        return np.abs(np.linalg.norm(points - shape.centre, axis=1) - shape.radius)
    if isinstance(shape, shapes.Box):
        excess = np.abs((points - shape.centre) @ shape.axes.T) - shape.half
        return np.linalg.norm(excess.clip(0), axis=1) + np.abs(np.minimum(excess.max(axis=1), 0))
    assert isinstance(shape, shapes.Cylinder)
    local = points - shape.centre
    out = np.hypot(local[:, 0], local[:, 2]) - shape.radius
    up = np.abs(local[:, 1] - shape.height / 2) - shape.height / 2
    excess = np.stack([out, up], axis=1)
    return np.linalg.norm(excess.clip(0), axis=1) + np.abs(np.minimum(excess.max(axis=1), 0))


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_every_pixel_lies_on_a_surface_of_its_class_and_none_lies_before_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = data.random_scene(rng, 24, 32)
    frame = rendering.render(scene, rng)
    points = world(scene, points_of(scene, frame.depth)).reshape(-1, 3)
    kinds = frame.segmentation.ravel()
    off = np.stack([np.where(kinds == shape.kind, distance(shape, points), np.inf) for shape in scene.shapes]).min(
        axis=0
    )
    assert off.max() < 1e-5
    towards = points - scene.camera.position
    for shape in scene.shapes:
        assert (shape.hits(scene.camera.position, towards) > 1 - 1e-5).all()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_normals_are_unit_face_the_camera_and_are_those_of_the_depth(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scene = data.random_scene(rng, 48, 64)
    frame = rendering.render(scene, rng)
    normals = frame.normals.astype(np.float64)
    np.testing.assert_allclose(np.linalg.norm(normals, axis=-1), 1, atol=1e-6)
    assert ((normals * scene.camera.rays()).sum(axis=-1) < 1e-4).all()

    points = points_of(scene, frame.depth.astype(np.float64))
    across, down = points[1:-1, 2:] - points[1:-1, :-2], points[2:, 1:-1] - points[:-2, 1:-1]
    found = np.cross(down, across)
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    centre = normals[1:-1, 1:-1]
    neighbours = [normals[1:-1, 2:], normals[1:-1, :-2], normals[2:, 1:-1], normals[:-2, 1:-1]]
    same = np.logical_and.reduce([np.abs(other - centre).max(axis=-1) < 1e-6 for other in neighbours])
    plane = (points[1:-1, 1:-1] * centre).sum(axis=-1)
    for z in (points[1:-1, 2:], points[1:-1, :-2], points[2:, 1:-1], points[:-2, 1:-1]):
        same &= np.abs((z * centre).sum(axis=-1) - plane) < 1e-4  # one plane, not two parallel ones
    assert same.mean() > 0.2
    assert (found * centre).sum(axis=-1)[same].min() > 0.999


def test_a_spheres_depth_and_normals_are_the_formulas() -> None:
    rng = np.random.default_rng(0)
    texture = textures.random_texture(rng)
    sphere = shapes.Sphere(np.array([0.2, 1.1, 3.0]), 0.9, texture)
    camera = rendering.Camera(np.array([0.0, 1.0, 0.0]), data.look_at(np.array([0.0, 0.0, 1.0])), 64, 64, 60.0)
    walls = shapes.room(np.array([5.0, 5.0]), 3.0, [texture] * 4)
    frame = rendering.render(rendering.Scene([*walls, sphere], camera, np.array([0.0, 2.5, 0.0])), rng)
    seen = frame.segmentation == shapes.CLASSES.index("sphere")
    rays = camera.rays()[seen]
    centre = camera.rotation @ (sphere.centre - camera.position)
    unit = rays / np.linalg.norm(rays, axis=1, keepdims=True)
    middle = unit @ centre
    length = middle - np.sqrt(middle**2 - centre @ centre + 0.81)
    np.testing.assert_allclose(frame.depth[seen], length * unit[:, 2], rtol=1e-6)
    np.testing.assert_allclose(frame.normals[seen], (unit * length[:, None] - centre) / 0.9, atol=1e-6)


def test_a_camera_sees_its_axes_as_documented() -> None:
    texture = textures.random_texture(np.random.default_rng(0))
    camera = rendering.Camera(np.array([0.0, 1.5, 0.0]), data.look_at(np.array([0.0, 0.0, 1.0])), 48, 64, 32.0)
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)
    walls = shapes.room(np.array([3.0, 4.0]), 3.0, [texture] * 4)
    scene = rendering.Scene(walls, camera, np.array([0.0, 2.5, 0.0]))
    frame = rendering.render(scene, np.random.default_rng(0))
    np.testing.assert_allclose(frame.depth[20:28, 28:36], 4.0)  # along the axis, so the same all over the wall
    np.testing.assert_allclose(frame.normals[24, 32], [0, 0, -1], atol=1e-7)
    np.testing.assert_allclose(frame.normals[-1, 32], [0, -1, 0], atol=1e-7)  # y is down, the floor's normal up
    assert [shapes.CLASSES[frame.segmentation[row, 32]] for row in (0, 24, -1)] == ["ceiling", "wall", "floor"]


def test_a_lamp_lights_what_faces_it_and_throws_shadows() -> None:
    rng = np.random.default_rng(1)
    white = textures.Texture("plain", np.ones((2, 3)), 1.0, np.eye(3)[0], np.zeros(3), np.zeros((16, 16, 16)))
    walls = shapes.room(np.array([3.0, 3.0]), 3.0, [white] * 4)
    ball = shapes.Sphere(np.array([0.0, 1.2, 1.0]), 0.4, white)
    camera = rendering.Camera(np.array([0.0, 1.6, -2.5]), data.look_at(np.array([0.0, -0.7, 3.0])), 48, 64, 50.0)
    lamp = np.array([0.0, 2.8, 1.0])
    lit, dark = (
        rendering.render(rendering.Scene([*walls, ball], camera, lamp, shadows=shadows, noise=0.0), rng)
        for shadows in (False, True)
    )
    points = camera.rays() * dark.depth[..., None] @ camera.rotation + camera.position
    floor = dark.segmentation == shapes.CLASSES.index("floor")
    away = np.hypot(points[..., 0], points[..., 2] - 1.0)
    under, open_floor = floor & (away < 0.5), floor & (away > 1.2)
    assert under.any()
    assert (dark.image[under].astype(int) < lit.image[under].astype(int) - 20).all()
    np.testing.assert_array_equal(dark.image[open_floor], lit.image[open_floor])


@pytest.mark.parametrize("strong", [None, 0, 1, 2])
def test_every_pattern_stays_within_its_two_colours(strong: int | None) -> None:
    rng = np.random.default_rng(0)
    points = rng.uniform(-4, 4, (500, 3))
    seen = set()
    while len(seen) < len(textures.PATTERNS):
        texture = textures.random_texture(rng, strong)
        assert strong is None or (texture.colours.argmax(axis=1) == strong).all()
        assert (texture.colours >= 0).all()
        assert (texture.colours <= 1).all()
        seen.add(texture.pattern)
        colours = texture.colour(points)
        low, high = texture.colours.min(axis=0), texture.colours.max(axis=0)
        assert (colours >= low - 1e-9).all()
        assert (colours <= high + 1e-9).all()
        assert (np.ptp(colours, axis=0).max() > 0.1) == (texture.pattern != "plain")


def test_things_stand_clear_of_one_another_of_the_walls_and_of_the_camera() -> None:
    for seed in range(40):
        scene = data.random_scene(np.random.default_rng(seed), 24, 32)
        walls = {tuple(shape.normal): shape.offset for shape in scene.shapes if isinstance(shape, shapes.Plane)}
        footprints = []
        for shape in scene.shapes:
            if not isinstance(shape, shapes.Plane):
                middle = shape.centre[[0, 2]]
                reach = np.hypot(*shape.half[[0, 2]]) if isinstance(shape, shapes.Box) else shape.radius
                assert abs(middle[0]) + reach < -walls[1.0, 0.0, 0.0]
                assert abs(middle[1]) + reach < -walls[0.0, 0.0, 1.0]
                assert np.hypot(*middle - scene.camera.position[[0, 2]]) > reach
                for other, extent in footprints:
                    assert np.hypot(*middle - other) > reach + extent
                footprints.append((middle, reach))
        assert len(footprints) <= 6


def test_each_kind_of_thing_has_its_share_of_the_pixels() -> None:
    frames = data.generate(40, 24, 32, seed=3)
    shares = np.bincount(frames.segmentation.ravel(), minlength=len(shapes.CLASSES)) / frames.segmentation.size
    for name in ("box", "sphere", "cylinder"):
        assert shares[shapes.CLASSES.index(name)] > 0.05, name


def test_a_seed_says_everything() -> None:
    first, again, other = (data.generate(3, 32, 64, seed=(seed, 0)) for seed in (1, 1, 2))
    for name, values in vars(first).items():
        np.testing.assert_array_equal(values, getattr(again, name))
        assert not np.array_equal(values, getattr(other, name))
    low, high = data.DEPTH_RANGE
    assert low < first.depth.min() < first.depth.max() < high


def test_annotations_have_the_shares_and_hiding_hides_the_rest() -> None:
    known = data.annotations(100, seed=3)
    assert known.sum(0).tolist() == [75, 30, 30]
    assert (known[:, 1] == known[:, 2]).all()
    assert known.any(axis=1).all()
    assert not np.array_equal(known, data.annotations(100, seed=4))
    frames = data.generate(3, 32, 32)
    hidden = data.hide(frames, np.array([[True, False, False], [False, True, True], [True, True, True]]))
    np.testing.assert_array_equal((hidden.segmentation == 255).all(axis=(1, 2)), [False, True, False])
    np.testing.assert_array_equal(np.isnan(hidden.depth).all(axis=(1, 2)), [True, False, False])
    np.testing.assert_array_equal(np.isnan(hidden.normals).all(axis=(1, 2, 3)), [True, False, False])
    np.testing.assert_array_equal(hidden.normals[2], frames.normals[2])


def test_files_hold_the_frames_as_documented(tmp_path: Path) -> None:
    frames = data.hide(data.generate(2, 32, 64), np.array([[True, True, True], [True, False, False]]))
    data.write(frames, tmp_path)
    found = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file())
    assert found == [
        "images/0000.png",
        "images/0001.png",
        "labels/depth/0000.npy",
        "labels/normals/0000.npy",
        "labels/segmentation/0000.png",
        "labels/segmentation/0001.png",
    ]
    assert Image.open(tmp_path / "labels" / "segmentation" / "0000.png").mode == "L"
    depth, normals = (np.load(tmp_path / "labels" / task / "0000.npy") for task in ("depth", "normals"))
    assert (depth.dtype, depth.shape, normals.dtype, normals.shape) == (np.float32, (32, 64), np.float32, (32, 64, 3))
    again = data.read(tmp_path)
    for name, values in vars(frames).items():
        np.testing.assert_array_equal(values, getattr(again, name))
    data.save(frames, tmp_path / "all.npz")
    with np.load(tmp_path / "all.npz") as stored:
        assert stored["classes"].tolist() == list(shapes.CLASSES)
        np.testing.assert_array_equal(stored["depth"], frames.depth)


def test_berhu_is_linear_below_its_bend_and_quadratic_beyond() -> None:
    errors = torch.tensor([10.0, 1.0, -2.0, -4.0])  # the bend is at 2
    assert objectives.berhu(errors).item() == pytest.approx((104 / 4 + 1 + 2 + 20 / 4) / 4)
    assert objectives.berhu(torch.zeros(0)).item() == 0
    assert objectives.berhu(torch.zeros(3)).item() == 0


def truth_of(seed: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    outputs = {
        name: torch.randn(2, size, 4, 6, generator=generator)
        for name, size in (("segmentation", 6), ("depth", 1), ("normals", 3))
    }
    truth = {
        "segmentation": torch.randint(6, (2, 4, 6), generator=generator),
        "depth": torch.rand(2, 1, 4, 6, generator=generator),
        "normals": torch.nn.functional.normalize(torch.randn(2, 3, 4, 6, generator=generator), dim=1),
    }
    return outputs, truth


def test_losses_are_means_over_known_pixels_only() -> None:
    outputs, truth = truth_of()
    truth["segmentation"][1], truth["depth"][1], truth["normals"][1] = 255, torch.nan, torch.nan
    both = objectives.losses_of(outputs, truth)
    first = objectives.losses_of(*({name: values[:1] for name, values in of.items()} for of in (outputs, truth)))
    for task, loss in both.items():
        assert loss.item() == pytest.approx(first[task].item())
    entropy = torch.nn.functional.cross_entropy(outputs["segmentation"][:1], truth["segmentation"][:1])
    assert both["segmentation"].item() == pytest.approx(entropy.item())


def test_rare_classes_weigh_more_and_all_pixels_together_as_much_as_without() -> None:
    segmentation = np.array([0] * 16 + [1] * 4 + [2, 3, 4, 5] + [255] * 8, np.uint8).reshape(1, 4, 8)
    frames = data.Frames(np.zeros((1, 4, 8, 3), np.uint8), segmentation, np.zeros(0), np.zeros(0))
    weights = objectives.class_weights(frames)
    np.testing.assert_allclose(weights / weights[0], [1, 2, 4, 4, 4, 4], rtol=1e-6)
    assert weights[torch.from_numpy(segmentation[segmentation != 255]).long()].mean().item() == pytest.approx(1)
    outputs, truth = truth_of()
    weights = torch.tensor([3.0, 1.0, 1.0, 1.0, 0.0, 0.0])
    entropies = torch.nn.functional.cross_entropy(outputs["segmentation"], truth["segmentation"], reduction="none")
    found = objectives.losses_of(outputs, truth, weights)["segmentation"]
    assert found.item() == pytest.approx((entropies * weights[truth["segmentation"]]).mean().item(), rel=1e-5)


def test_nothing_known_gives_no_loss_and_no_bad_gradient() -> None:
    outputs, truth = truth_of()
    truth["segmentation"][:], truth["depth"][:], truth["normals"][:] = 255, torch.nan, torch.nan
    outputs = {task: values.requires_grad_() for task, values in outputs.items()}
    losses = objectives.losses_of(outputs, truth)
    sum(losses.values()).backward()
    for task, values in outputs.items():
        assert losses[task].item() == 0
        assert values.grad is None or (values.grad == 0).all()


def test_scores_are_perfect_for_the_truth_and_known_for_known_errors() -> None:
    frames = data.generate(3, 32, 32)
    perfect = objectives.Scores()
    perfect.add(frames.segmentation, frames.depth, 3 * frames.normals, frames)
    assert perfect.values == pytest.approx((1.0, 0.0, 0.0), abs=0.05)
    tilted = np.stack([frames.normals[..., 1], -frames.normals[..., 0], 0 * frames.normals[..., 2]], axis=-1)
    wrong = objectives.Scores()
    for i in range(3):
        wrong.add(np.zeros((1, 32, 32), np.uint8), frames.depth[i : i + 1] + 0.5, tilted[i : i + 1], frames[i : i + 1])
    iou, rmse, degrees = wrong.values
    present = len(np.unique(frames.segmentation))
    assert iou == pytest.approx((frames.segmentation == 0).mean() / present)
    assert rmse == pytest.approx(0.5, rel=1e-5)
    assert degrees == pytest.approx(90, abs=0.01)


def test_a_teachers_predictions_stand_in_where_labels_lack_and_nowhere_else() -> None:
    torch.manual_seed(0)
    frames = data.generate(3, 32, 64)
    known = np.array([[True, False, False], [False, True, True], [True, True, True]])
    teacher = refinenet.small()
    hidden = data.hide(frames, known)
    filled = train.filled(teacher, hidden)
    ((_, classes, depth, normals),) = train.predicted(teacher, frames.images)
    np.testing.assert_array_equal(filled.segmentation[[0, 2]], frames.segmentation[[0, 2]])
    np.testing.assert_array_equal(filled.segmentation[1], classes[1])
    np.testing.assert_array_equal(filled.depth, np.stack([depth[0], frames.depth[1], frames.depth[2]]))
    np.testing.assert_array_equal(filled.normals, np.stack([normals[0], frames.normals[1], frames.normals[2]]))
    assert np.isnan(hidden.depth[0]).all()


def test_mirroring_a_batch_keeps_normals_true() -> None:
    frames = data.generate(2, 32, 64)
    straight = train.normalised(frames.images)
    seen = set()
    for seed in range(12):
        ((images, truth),) = train.batches(frames, 2, (seed, 0))
        mirrored = not any(torch.equal(images[0], image) for image in straight)
        seen.add(mirrored)
        order = [
            next(i for i in range(2) if torch.equal(straight[i].flip(-1) if mirrored else straight[i], image))
            for image in images
        ]
        expected = frames.normals[order][:, :, ::-1] * [-1, 1, 1] if mirrored else frames.normals[order]
        np.testing.assert_array_equal(truth["normals"].permute(0, 2, 3, 1), expected.astype(np.float32))
    assert seen == {False, True}


def test_a_short_training_lowers_every_loss() -> None:
    torch.manual_seed(0)
    frames = data.hide(data.generate(24, 32, 64), data.annotations(24))
    network = refinenet.joint(segmentation=6, normals=True, width=0.25, decoder=32)
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    schedule = torch.optim.lr_scheduler.ConstantLR(optimizer, 1.0)
    history = [train.run_epoch(network, frames, optimizer, schedule, 8, (0, epoch)) for epoch in range(6)]
    for task in data.TASKS:
        assert history[-1][task] < 0.9 * history[0][task], task


def test_the_task_file_is_the_networks_and_the_scenes() -> None:
    tasks = {task.name: task for task in read_task_file(EXAMPLE / "tasks.toml")}
    assert tuple(tasks) == data.TASKS
    assert tasks["segmentation"].labels == shapes.CLASSES
    assert tasks["depth"].valid_range == data.DEPTH_RANGE
    assert tasks["depth"].unit == "metres"
    with torch.device("meta"):
        outputs = refinenet.small()(torch.empty(2, 3, 32, 64))
    for name, task in tasks.items():
        assert task.with_size(outputs[name].shape[1]).size == outputs[name].shape[1]


def test_the_script_writes_what_the_exporter_reads(tmp_path: Path) -> None:
    command = [sys.executable, str(EXAMPLE / "train.py"), "--out", str(tmp_path), "--size", "32x64", "--threads", "1"]
    sizes = ["--frames", "20", "--test-frames", "6", "--epochs", "1", "--batch", "10", "--wide-teacher"]
    result = subprocess.run([*command, *sizes], capture_output=True, text=True, check=True)
    for row in ("student ", "teacher (wide)", "student without the teacher's labels", "best constant answer"):
        assert row in result.stdout
    refinenet.small().load_state_dict(torch.load(tmp_path / "model.pt", weights_only=True))
    assert len(data.read(tmp_path / "test")) == 6
    assert (tmp_path / "tasks.toml").exists()
    assert (tmp_path / "train.npz").exists()
