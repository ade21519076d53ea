"""What mtl-infer writes and where: never over an input, no two pictures under one name, and as the images come."""

from __future__ import annotations

import errno
import json
import os
import resource
import tracemalloc
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import cli_output
from mtl_deploy.runtime.cli import main
from mtl_deploy.runtime.errors import OptionError
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.files.output_file import placed
from mtl_deploy.runtime.show.targets import picture_names
from tests.networks.dense_bundle import write_dense_bundle

MakeBundle = Callable[..., Path]


def picture(file: Path, level: int = 0, size: tuple[int, int] = (9, 7)) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((*size, 3), level, np.uint8)).save(file)
    return file


def contents(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.parametrize("force", [[], ["--force"]])
def test_an_input_is_never_written_over(
    make_bundle: MakeBundle, tmp_path: Path, force: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "b.png", "deep/c.png"):
        picture(photos / name)
    (tmp_path / "other").mkdir()
    (tmp_path / "other/a.png").symlink_to(photos / "a.png")
    os.link(photos / "b.png", tmp_path / "hard.png")
    before = contents(tmp_path)
    bundle = str(make_bundle())
    for images, show in (
        ([photos], photos),
        ([photos], f"{photos}/deep/.."),
        ([photos / "a.png"], photos / "a.png"),
        ([photos / "a.png", photos / "b.png"], tmp_path / "other"),
        ([photos / "b.png"], tmp_path / "hard.png"),
    ):
        assert main([bundle, *map(str, images), "--show", str(show), *force]) == 2
        captured = capsys.readouterr()
        assert "that is an input, which is never overwritten" in captured.err
        assert captured.out == ""
    assert {name: content for name, content in contents(tmp_path).items() if "tiny.mtl" not in name} == before


def test_a_file_that_exists_is_replaced_by_force_alone(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = picture(tmp_path / "a.jpg")
    (tmp_path / "overlay.png").write_text("mine")
    arguments = [str(make_bundle()), str(photo), "--show", str(tmp_path / "overlay.png")]
    assert main(arguments) == 2
    assert "exists; pass --force to replace it" in capsys.readouterr().err
    assert (tmp_path / "overlay.png").read_text() == "mine"
    assert main([*arguments, "-f"]) == 0
    with Image.open(tmp_path / "overlay.png") as found:
        assert found.width > 300
    assert sorted(file.name for file in tmp_path.iterdir()) == ["a.jpg", "overlay.png", "tiny.mtl"]


def test_with_force_a_link_is_replaced_and_what_it_leads_to_stays(make_bundle: MakeBundle, tmp_path: Path) -> None:
    photo = picture(tmp_path / "a.jpg")
    mine = picture(tmp_path / "mine.png").read_bytes()
    (tmp_path / "overlay.png").symlink_to(tmp_path / "mine.png")
    assert main([str(make_bundle()), str(photo), "--show", str(tmp_path / "overlay.png"), "--force"]) == 0
    assert (tmp_path / "mine.png").read_bytes() == mine
    assert not (tmp_path / "overlay.png").is_symlink()


def test_what_appears_in_the_meantime_stays(tmp_path: Path) -> None:
    target = tmp_path / "out.png"

    def race() -> None:
        with placed("--show", target, force=False) as beside:
            beside.write_text("new")
            target.write_text("theirs")

    with pytest.raises(OptionError, match="exists; pass --force"):
        race()
    assert contents(tmp_path) == {"out.png": b"theirs"}


def test_file_systems_without_links_are_written_to(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")  # as FAT answers

    def no_flags(*_: object) -> None:
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(disk, "_renameat2", no_flags)
    monkeypatch.setattr(disk.os, "link", no_links)
    for text in ("new", "newer"):
        with placed("--show", tmp_path / f"{text}.png", force=False) as beside:
            beside.write_text(text)
    assert contents(tmp_path) == {"new.png": b"new", "newer.png": b"newer"}
    with pytest.raises(OptionError, match="exists"), placed("--show", tmp_path / "new.png", force=False) as again:
        again.write_text("again")
    assert contents(tmp_path) == {"new.png": b"new", "newer.png": b"newer"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        (["a/x.png", "a/y.jpg"], ["x", "y"]),
        (["a/x.png", "a/x.jpg"], ["a_x_png", "a_x_jpg"]),
        (["a/x.png", "b/x.png"], ["a_x", "b_x"]),
        (["a/x.png", "b/X.png"], ["a_x", "b_X"]),
        (["a/x.png", "a/X.png"], ["a_x_png_2", "a_X_png_3"]),
        (["x.png", "x.jpg", "x_png.gif"], ["x_png_2", "x_jpg", "x_png"]),
        (["x.png", "x.png"], ["x_png_2", "x_png_3"]),
        (["/a/../x.png", "x.png"], ["a_x", "x"]),
    ],
)
def test_no_two_pictures_have_one_name(files: list[str], names: list[str]) -> None:
    found = picture_names([Path(file) for file in files])
    assert len({name.casefold() for name in found}) == len(files)
    assert found == names


def test_images_that_differ_in_their_suffix_alone_get_a_picture_each(make_bundle: MakeBundle, tmp_path: Path) -> None:
    picture(tmp_path / "photos/a.png", 0)
    picture(tmp_path / "photos/a.jpg", 255)
    assert main([str(make_bundle()), str(tmp_path / "photos"), "--show", str(tmp_path / "shown")]) == 0
    found = contents(tmp_path / "shown")
    assert len(found) == len(set(found.values())) == 2


def test_a_video_is_not_written_over_itself_nor_over_another(make_bundle: MakeBundle, tmp_path: Path) -> None:
    pytest.importorskip("cv2", reason="OpenCV (the extra 'video') is not installed")
    from mtl_deploy.runtime.show.video import VideoWriter

    with closing(VideoWriter(tmp_path / "in.mp4", 5.0)) as recorder:
        for level in (0, 255):
            recorder.write(np.full((48, 64, 3), level, np.uint8))
    (tmp_path / "out.mp4").write_text("mine")
    before = contents(tmp_path)
    bundle = str(make_bundle(tmp_path / "model.mtl"))
    for show in ("in.mp4", "out.mp4"):
        assert main([bundle, str(tmp_path / "in.mp4"), "--show", str(tmp_path / show)]) == 2
    assert main([bundle, str(tmp_path / "in.mp4"), "--show", str(tmp_path / "in.mp4"), "--force"]) == 2
    assert {name: content for name, content in contents(tmp_path).items() if ".mp4" in name} == before
    assert main([bundle, str(tmp_path / "in.mp4"), "--show", str(tmp_path / "out.mp4"), "--force"]) == 0
    assert (tmp_path / "out.mp4").read_bytes() != b"mine"
    assert len(list(tmp_path.iterdir())) == 3


def test_a_damaged_image_keeps_the_predictions_of_the_others(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from tests.runtime.images.test_files import with_tag_of_another_type

    for name in ("a.png", "z.png"):
        picture(tmp_path / "photos" / name)
    with_tag_of_another_type(tmp_path / "photos/m.tiff")
    os.mkfifo(tmp_path / "photos/n.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "photos/o.jpg", format="DDS")
    shown = tmp_path / "shown"
    assert main([str(make_bundle()), str(tmp_path / "photos"), "--json", "--show", str(shown)]) == 2
    captured = capsys.readouterr()
    document = json.loads(captured.out)
    assert [Path(one["image"]).name for one in document["predictions"]] == ["a.png", "z.png"]
    assert [Path(one["image"]).name for one in document["left_out"]] == ["m.tiff", "n.png", "o.jpg"]
    assert captured.err.count("left out: ") == 3
    assert sorted(file.name for file in shown.iterdir()) == ["a.png", "z.png"]


def test_rows_come_as_the_images_do_and_a_failure_keeps_them(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        picture(tmp_path / f"photos/{number}.png", 40 * number)
    bundle = str(make_bundle())
    assert main([bundle, str(tmp_path / "photos")]) == 0
    whole = capsys.readouterr().out
    monkeypatch.setattr(cli_output, "_WIDTHS_FROM", 2)
    assert main([bundle, str(tmp_path / "photos")]) == 0
    assert [line.split() for line in capsys.readouterr().out.splitlines()] == [
        line.split() for line in whole.splitlines()
    ]


def test_a_failure_in_between_keeps_what_was_printed_and_closes_the_document(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "photos/0.png")
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (900, 900, 3), dtype=np.uint8)).save(tmp_path / "photos/1.bmp")  # 3 MB as PNG
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, before[1]))  # as a full disk
    try:
        code = main(
            [
                str(make_bundle()),
                str(tmp_path / "photos"),
                "--show",
                str(tmp_path / "shown"),
                "--json",
                "--tasks",
                "age",
            ]
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    captured = capsys.readouterr()
    assert code == 2
    assert "1.png: File too large" in captured.err
    document = json.loads(captured.out)
    assert [Path(one["image"]).name for one in document["predictions"]] == ["0.png"]
    assert document["stopped"].endswith("1.png: File too large")
    assert sorted(file.name for file in (tmp_path / "shown").iterdir()) == ["0.png"]


def test_a_folder_in_a_pictures_place_is_known_before_any_work(
    make_bundle: MakeBundle, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    picture(tmp_path / "photos/0.png")
    picture(tmp_path / "photos/1.png")
    (tmp_path / "shown/1.png").mkdir(parents=True)
    assert main([str(make_bundle()), str(tmp_path / "photos"), "--show", str(tmp_path / "shown"), "--force"]) == 2
    captured = capsys.readouterr()
    assert "1.png: a folder; name a file" in captured.err
    assert captured.out == ""


def test_long_names_are_cut_and_still_differ() -> None:
    files = [Path(f"{'a' * 150}/{'b' * 150}/{end}x.png") for end in ("", "c/", "d/")]
    files += [Path("\u6771" * 80 + ".png")]
    found = picture_names(files)
    assert len(set(found)) == 4
    assert all(len(os.fsencode(f"{name}.png")) < 255 for name in found)


def test_memory_does_not_grow_with_the_number_of_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    bundle = str(write_dense_bundle(tmp_path / "dense.mtl"))
    for number in range(9):
        picture(tmp_path / f"photos/{number}.png", 20 * number, (600, 800))  # maps of 8 MB an image
    photos = sorted(map(str, (tmp_path / "photos").iterdir()))

    def peak(images: list[str], *more: str) -> int:
        tracemalloc.start()
        assert main([bundle, *images, *more]) == 0
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        capsys.readouterr()
        return most

    peak(photos[:1])  # what is made once
    for more in ([], ["--json"]):
        assert peak(photos, *more) < 1.2 * peak(photos[:2], *more)
