"""Names that mean a file on disk but are spelt differently, and the forms in which spreadsheets write tables."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.data.images import find_images, load_images, synthetic_images
from mtl_deploy.calibration.data.names import Folders, folded
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError

SIZE = Preprocessing(height=12, width=10)
AGE = Task("age", "regression", unit="years", size=1)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
COMPOSED, DECOMPOSED = (unicodedata.normalize(form, "Müller é") for form in ("NFC", "NFD"))
RAW = os.fsdecode(b"\xe9\xff")

OnDisk = Callable[..., Path]


@pytest.fixture
def on_disk(tmp_path: Path) -> OnDisk:
    """A function that writes images of these names into a folder, and returns it."""

    def write(*names: str) -> Path:
        for name, pixels in zip(names, synthetic_images(len(names), 16, 14, seed=0), strict=True):
            (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "images" / name, format="PNG")
        return tmp_path / "images"

    return write


SPELLINGS = [
    pytest.param(f"{COMPOSED}.png", f"{DECOMPOSED}.png", id="decomposed"),
    pytest.param(f"{DECOMPOSED}.png", f"{COMPOSED}.png", id="composed"),
    pytest.param("IMG_1.JPG", "img_1.jpg", id="case"),
    pytest.param("a/b.png", "a\\b.png", id="backslash"),
    pytest.param("a/b.png", ".\\a\\b.PNG", id="all"),
    pytest.param(f"a/{DECOMPOSED}/c.png", f"./A/{COMPOSED}/c.png", id="folders"),
    pytest.param(f"{RAW}.png", f"{RAW}.PNG", id="not UTF-8"),
]


@pytest.mark.parametrize(("name", "spelt"), SPELLINGS)
def test_a_label_is_not_lost_for_another_spelling(name: str, spelt: str, on_disk: OnDisk, tmp_path: Path) -> None:
    images = on_disk(name, "other.png")
    if name.startswith(RAW):
        pytest.skip("a CSV file is UTF-8")
    (tmp_path / "labels.csv").write_text(f"file,age\n{spelt},41\nother.png,7\n", encoding="utf-8")
    data = load_data(images, SIZE, [AGE], labels=tmp_path / "labels.csv")
    assert sorted(data.labels["age"].tolist()) == [7, 41]
    assert not any("no line" in warning or "no image" in warning for warning in data.warnings)


@pytest.mark.parametrize(("name", "spelt"), SPELLINGS)
def test_a_list_finds_the_file_that_it_means(name: str, spelt: str, on_disk: OnDisk) -> None:
    images = on_disk(name, "other.png")
    (images / "list.txt").write_bytes(os.fsencode(f"{spelt}\nother.png\n"))
    assert find_images(images / "list.txt") == [images / name, images / "other.png"]
    assert len(load_images(images / "list.txt", SIZE).array) == 2


def test_the_very_name_goes_before_another_spelling(on_disk: OnDisk, tmp_path: Path) -> None:
    images = on_disk("a.png", "A.png", "b.png")
    (tmp_path / "labels.csv").write_text("file,age\na.png,1\nA.png,2\nB.png,3\n", encoding="utf-8")
    data = load_data(images, SIZE, [AGE], labels=tmp_path / "labels.csv")
    assert dict(zip((path.name for path in find_images(images)), data.labels["age"], strict=True)) == {
        "A.png": 2,
        "a.png": 1,
        "b.png": 3,
    }
    (tmp_path / "labels.csv").write_text("file,age\na.png,1\nb.png,3\n", encoding="utf-8")
    data = load_data(images, SIZE, [AGE], labels=tmp_path / "labels.csv")
    assert np.isnan(data.labels["age"][0])  # A.png is another file, and no line is about it
    assert Folders().find(images / "A.PNG") is None


@pytest.mark.parametrize("other", ["./a.png", "A.png"])
def test_lines_that_contradict_each_other_about_one_image_are_an_error(
    other: str, on_disk: OnDisk, tmp_path: Path
) -> None:
    images = on_disk("a.png", "b.png")
    first = "a.PNG" if other == "A.png" else "a.png"
    (tmp_path / "labels.csv").write_text(f"file,age\n{first},1\n{other},2\nb.png,3\n", encoding="utf-8")
    with pytest.raises(OptionError, match=r"lines 2 and 3 give one image, .* different labels"):
        load_data(images, SIZE, [AGE], labels=tmp_path / "labels.csv")


TABLES = {
    "semicolons and decimal commas": "file;age;gender\na.png;41,5;1,0\nb.png;7,25;male\n",
    "sep": "sep=;\nfile;age;gender\na.png;41,5;female\nb.png;7,25;0\n",
    "sep of commas": "SEP=,\r\nfile,age,gender\r\na.png,41.5,1\r\nb.png,7.25,0\r\n",
    "tabs": "file\tage\tgender\na.png\t41,5\t1\nb.png\t7.25\t0\n",
    "separators at the end": "file;age;gender;;\na.png;41,5;1;;\nb.png;7,25;0;\n",
    "quoted": '"file","age","gender"\n"a.png","41.5","1"\n"b.png","7.25","0"\n',
    "old line ends": "file;age;gender\ra.png;41,5;1\rb.png;7,25;0\r",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("table", TABLES.values(), ids=TABLES)
def test_tables_are_read_as_spreadsheets_write_them(table: str, encoding: str, on_disk: OnDisk, tmp_path: Path) -> None:
    images = on_disk("a.png", "b.png")
    (tmp_path / "labels.csv").write_bytes(table.encode(encoding))
    data = load_data(images, SIZE, [AGE, GENDER], labels=tmp_path / "labels.csv")
    assert data.labels["age"].tolist() == [41.5, 7.25]
    assert data.labels["gender"].tolist() == [1, 0]


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("sep=;\nfile;age\na.png;x\n", "line 3: age 'x' is not a number"),
        ("file,age\na.png,1,5\n", "line 2 has 3 cells, the line of column names 2"),
        ('file,age\na.png,"1,5"\n', "age '1,5' is not a number"),  # a thousand and five hundred to some
        ("file;age\na.png;1.000,5\n", "is not a number"),
        ("file;age\na.png\n", "line 2 has 1 cell,"),
    ],
)
def test_what_has_no_one_meaning_is_not_guessed(table: str, message: str, on_disk: OnDisk, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_text(table, encoding="utf-8")
    with pytest.raises(OptionError, match=message):
        load_data(on_disk("a.png"), SIZE, [AGE], labels=tmp_path / "labels.csv")


def test_a_quoted_name_may_hold_a_line_end(on_disk: OnDisk, tmp_path: Path) -> None:
    images = on_disk("a\nb.png", "c\u2028d.png")
    (tmp_path / "labels.csv").write_text('file,age\n"a\nb.png",1\nc\u2028d.png,2\n', encoding="utf-8")
    assert load_data(images, SIZE, [AGE], labels=tmp_path / "labels.csv").labels["age"].tolist() == [1, 2]


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_list_may_begin_with_a_mark(encoding: str, on_disk: OnDisk) -> None:
    images = on_disk("a.png", "c\u2028d.png")
    (images / "list.txt").write_bytes("a.png\r\n# b.png\r\nc\u2028d.png\r\n".encode(encoding))
    assert find_images(images / "list.txt") == [images / "a.png", images / "c\u2028d.png"]
    assert len(load_data(images / "list.txt", SIZE, [AGE])) == 2


def test_a_picture_is_no_list(on_disk: OnDisk) -> None:
    with pytest.raises(ImageError, match="not a text file"):
        find_images(on_disk("a.png") / "a.png")


def test_a_label_map_is_found_under_another_spelling(on_disk: OnDisk, tmp_path: Path) -> None:
    images = on_disk(f"{COMPOSED}.png", "IMG.JPG")
    folder = tmp_path / "labels" / "seg"
    folder.mkdir(parents=True)
    for name in (f"{DECOMPOSED}.png", "img.PNG"):
        Image.fromarray(np.ones((16, 14), np.uint8)).save(folder / name)
    task = Task("seg", "segmentation", labels=("a", "b"), size=2)
    data = load_data(images, SIZE, [task], labels=tmp_path / "labels")
    assert data.dense["seg"].known.all()


def test_spellings_fold_to_one() -> None:
    assert folded(f"./A\\{DECOMPOSED}.PNG") == folded(f"a/{COMPOSED}.png")
    assert folded("a.png") != folded("b.png")
