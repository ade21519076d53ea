"""Labels from UTKFace's file names and from CSV files, by text and by index, and what in them cannot be used."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.data.images import synthetic_images
from mtl_deploy.calibration.data.labels import parse_labels
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.errors import ImageError, OptionError

SIZE = Preprocessing(height=12, width=10)
AGE = Task("age", "regression", unit="years", size=1)
GENDER = Task("gender", "binary", labels=("male", "female"), size=1)
RACE = Task("race", "multiclass", labels=("White", "Black", "Asian", "Indian", "Others"), size=5)
TASKS = (AGE, GENDER, RACE)

UTKFACE = {  # real names of the data set, with what they say
    "25_0_2_20170116174525125.jpg.chip.jpg": (25, 0, 2),
    "1_1_0_20161219200338012.jpg": (1, 1, 0),
    "116_1_4_20170112213257263.jpg.chip.jpg": (116, 1, 4),
    "24_0_1_20170116220224657 .jpg": (24, 0, 1),
    "55_0_0_20170116232725357jpg.jpg": (55, 0, 0),
}
MALFORMED = ("61_1_20170109142408075.jpg", "61_1_20170109150557335.jpg.chip.jpg", "53__0_20170116184028385.jpg")


def write(folder: Path, names: list[str] | tuple[str, ...]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, pixels in zip(names, synthetic_images(len(names), 16, 14, seed=0), strict=True):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)


@pytest.fixture
def numbered(tmp_path: Path) -> Path:
    """Six images ``0.png`` to ``5.png``."""
    write(tmp_path / "images", [f"{i}.png" for i in range(6)])
    return tmp_path / "images"


WriteCsv = Callable[[str], Path]


@pytest.fixture
def csv_file(tmp_path: Path) -> WriteCsv:
    def write_text(text: str) -> Path:
        (tmp_path / "labels.csv").write_text(text, encoding="utf-8")
        return tmp_path / "labels.csv"

    return write_text


def test_utkface_names_carry_the_labels_and_malformed_ones_are_listed_and_skipped(tmp_path: Path) -> None:
    write(tmp_path / "part1", [*UTKFACE, *MALFORMED])
    data = load_data(tmp_path, SIZE, TASKS)
    rows = list(zip(*(data.labels[task.name].tolist() for task in TASKS), strict=True))
    assert rows == [UTKFACE[name] for name in sorted(UTKFACE)]
    assert {name: values.dtype for name, values in data.labels.items()} == {
        "age": np.float64,
        "gender": np.int64,
        "race": np.int64,
    }
    assert data.skipped.keys() == {f"part1/{name}" for name in MALFORMED}
    assert all("[age]_[gender]_[race]_[date]" in reason for reason in data.skipped.values())
    assert "labels from UTKFace's file names, 3 files left out" in data.source


def test_utkface_values_out_of_range_are_malformed(tmp_path: Path) -> None:
    write(tmp_path, ["9_0_0_20170101000000000.jpg", "9_3_0_20170101000000000.jpg", "140_0_7_20170101000000000.jpg"])
    data = load_data(tmp_path, SIZE, TASKS)
    assert len(data) == 1
    assert "gender 3 is not 0 to 1" in data.skipped["9_3_0_20170101000000000.jpg"]
    assert "age 140 is not 0 to 116; race 7 is not 0 to 4" in data.skipped["140_0_7_20170101000000000.jpg"]
    (tmp_path / "9_0_0_20170101000000000.jpg").unlink()
    with pytest.raises(
        ImageError, match=r"none of the images \(2\) can be used; .*: its name is not of UTKFace's form"
    ):
        load_data(tmp_path, SIZE, TASKS)


def test_a_sample_of_utkface_replaces_unreadable_files_and_keeps_labels_with_their_images(tmp_path: Path) -> None:
    names = [f"{age}_{age % 2}_{age % 5}_20170116174525{age:03d}.jpg.chip.jpg" for age in range(1, 41)]
    tmp_path.mkdir(exist_ok=True)
    for age, name in enumerate(names, start=1):
        Image.new("RGB", (20, 20), (5 * age, 5 * age, 5 * age)).save(tmp_path / name, quality=95)
    for name in names[:10]:
        (tmp_path / name).write_bytes(b"gone bad")
    data = load_data(tmp_path, SIZE, TASKS, samples=25, seed=3)
    assert len(data) == 25
    ages = np.rint(data.images.mean(axis=(1, 2, 3)) / 5)
    np.testing.assert_array_equal(data.labels["age"], ages)
    np.testing.assert_array_equal(data.labels["gender"], ages % 2)
    assert data.digest == load_data(tmp_path, SIZE, TASKS, samples=25, seed=3).digest
    assert data.digest != load_data(tmp_path, SIZE, TASKS, samples=25, seed=4).digest


def test_a_tasks_own_words_decide_which_class_a_utkface_index_is(tmp_path: Path) -> None:
    write(tmp_path, tuple(UTKFACE))
    tasks = (
        Task("gender", "binary", labels=("Female", "Male"), size=1),
        Task("race", "multiclass", labels=("asian", "black", "indian", "other", "white"), size=5),
    )
    data = load_data(tmp_path, SIZE, tasks)
    expected = [UTKFACE[name] for name in sorted(UTKFACE)]
    assert data.labels["gender"].tolist() == [1 - gender for _, gender, _ in expected]
    assert data.labels["race"].tolist() == [[4, 1, 0, 2, 3][race] for _, _, race in expected]


def test_other_words_leave_utkfaces_indices_as_they_are_and_say_so(tmp_path: Path) -> None:
    write(tmp_path, tuple(UTKFACE))
    tasks = (Task("race", "multiclass", labels=("a", "b", "c"), size=3), Task("age", "multiclass", size=4))
    data = load_data(tmp_path, SIZE, tasks)
    expected = [race if race < 3 else -1 for _, _, race in (UTKFACE[name] for name in sorted(UTKFACE))]
    assert data.labels["race"].tolist() == expected
    text = "; ".join(data.warnings)
    assert "race: its labels (a, b, c) are not UTKFace's; its indices are used as they are (0 white" in text
    assert "age: UTKFace's names do not give the labels of a multiclass task" in text


def test_files_of_other_names_or_tasks_have_no_labels(numbered: Path, tmp_path: Path) -> None:
    assert load_data(numbered, SIZE, TASKS).labels == {}
    write(tmp_path / "faces", tuple(UTKFACE))
    data = load_data(tmp_path / "faces", SIZE, [Task("digit", "multiclass", size=10)])
    assert (data.labels, data.skipped) == ({}, {})


def test_a_csv_file_gives_labels_by_text_and_by_index(numbered: Path, csv_file: WriteCsv) -> None:
    labels = csv_file(
        "file,Age,gender,race,camera\n"
        "images/0.png,31.5,female,White,a\nimages/1.png,,male,asian,a\nimages/2.png,7,,Others,b\n"
        "images/3.png,nan,Female,Black,\nimages/5.png,60,male,Indian,b\n"
    )
    data = load_data(numbered, SIZE, TASKS, labels=labels)
    np.testing.assert_array_equal(data.labels["age"], [31.5, np.nan, 7, np.nan, np.nan, 60])
    assert data.labels["gender"].tolist() == [1, 0, -1, 1, -1, 0]
    assert data.labels["race"].tolist() == [0, 2, 4, 1, -1, 3]
    assert "labels.csv: no line for 1 (4.png) of 6 images" in data.warnings
    assert "gender: labels for 4 of 6 images" in data.warnings


def test_indices_may_be_written_as_table_programs_write_them(numbered: Path, csv_file: WriteCsv) -> None:
    labels = csv_file("\ufefffile;gender;race\r\n0.png;1.0;4\r\n1.png;0.0;-1\r\n\r\n2.png;;2\r\n")
    data = load_data(numbered, SIZE, TASKS, labels=labels)
    assert data.labels["gender"].tolist() == [1, 0, -1, -1, -1, -1]
    assert data.labels["race"].tolist() == [4, -1, 2, -1, -1, -1]
    assert "age" not in data.labels
    assert "age: no labels; its outputs can only be compared with FP32" in data.warnings


def test_numbers_that_are_a_tasks_labels_are_read_as_labels_only_where_all_are(
    numbered: Path, csv_file: WriteCsv
) -> None:
    task = Task("stars", "multiclass", labels=("1", "2", "3"), size=3)
    by_text = load_data(numbered, SIZE, [task], labels=csv_file("file,stars\n0.png,1\n1.png,3\n2.png,2\n"))
    assert by_text.labels["stars"].tolist()[:3] == [0, 2, 1]
    also_indices = load_data(numbered, SIZE, [task], labels=csv_file("file,stars\n0.png,1\n1.png,2\n"))
    assert also_indices.labels["stars"].tolist()[:2] == [0, 1]
    by_index = load_data(numbered, SIZE, [task], labels=csv_file("file,stars\n0.png,0\n1.png,2\n2.png,1\n"))
    assert by_index.labels["stars"].tolist()[:3] == [0, 2, 1]


def test_labels_that_cannot_be_used_are_named_by_line_and_count_as_unknown(numbered: Path, csv_file: WriteCsv) -> None:
    labels = csv_file("file,age,race\n0.png,old,Martian\n\n1.png,40,7\n2.png,inf,Black\n")
    data = load_data(numbered, SIZE, TASKS, labels=labels)
    np.testing.assert_array_equal(data.labels["age"][:3], [np.nan, 40, np.nan])
    assert data.labels["race"].tolist()[:3] == [-1, -1, 1]
    text = "; ".join(data.warnings)
    assert "2 labels (line 2: age 'old' is not a number, line 5: age 'inf' is not a number)" in text
    assert "line 2: race 'Martian' is not one of White, Black, Asian, Indian, Others or an index from 0 to 4" in text
    assert "line 4: race '7'" in text


def test_csv_paths_may_be_absolute_relative_to_either_place_or_bare_names(tmp_path: Path, csv_file: WriteCsv) -> None:
    folder = tmp_path / "images"
    write(folder, ["a/x.png", "b/x.png", "b/y.png", "c.png"])
    labels = csv_file(f"file,age\n{folder / 'a' / 'x.png'},1\nb/x.png,2\ny.png,3\nimages/../images/c.png,4\nz.png,5\n")
    data = load_data(folder, SIZE, TASKS, labels=labels)
    assert data.labels["age"].tolist() == [1, 2, 3, 4]
    assert "labels.csv: no image for 1 (z.png) of 5 lines" in data.warnings
    ambiguous = load_data(folder, SIZE, TASKS, labels=csv_file("file,age\nx.png,1\nc.png,2\n"))
    np.testing.assert_array_equal(ambiguous.labels["age"], [np.nan, np.nan, np.nan, 2])


def test_a_list_of_files_takes_labels_in_its_own_order(numbered: Path, csv_file: WriteCsv, tmp_path: Path) -> None:
    listing = tmp_path / "list.txt"
    listing.write_text("images/3.png\nimages/0.png\nimages/3.png\nimages/missing.png\n")
    labels = csv_file("file,age\nimages/0.png,10\nimages/3.png,13\n")
    data = load_data(listing, SIZE, TASKS, labels=labels)
    assert data.labels["age"].tolist() == [13, 10, 13]
    assert data.skipped.keys() == {"images/missing.png"}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "No such file or directory; give a CSV file"),
        ("", "holds no labels"),
        ("file,age\n", "holds no labels"),
        ("path,age\n0.png,3\n", "no column 'file'; the columns are path, age"),
        (
            "file,digit\n0.png,3\n",
            "no column is named after a task; the tasks are age, gender, race, the columns file, digit",
        ),
        ("file,age\n0.png,3\n1.png\n", "line 3 has 1 cell, the line of column names 2; the separator is ','"),
        ("sep=;\n\nfile;age\n0.png;3\n1.png\n", "line 5 has 1 cell, the line of column names 2; the separator is ';'"),
        ("file,age,age\n0.png,3,4\n", r"2 columns are named 'age' \(age, age\); leave or rename all but one"),
        ("file,AGE,Age\n0.png,3,4\n", r"2 columns are named 'age' \(AGE, Age\)"),
        ("File,FILE,age\n0.png,1.png,4\n", r"2 columns are named 'file' \(File, FILE\)"),
        (
            'file;age\n"C:\\\\photos\\\\0.jpg";3\n',
            "is 'C:.*0.jpg', an absolute path; write paths relative to the CSV file",
        ),
        ("file,age\n/elsewhere/0.jpg,3\n", "is '/elsewhere/0.jpg', an absolute path; write paths relative"),
        ("file,age\nother.png,3\n", "none of its files .1. is an image of .*; the first one is 'other.png'$"),
        ("file,age\n0.png,old\n1.png,young\n", "no label of task 'age' can be used; line 2: age 'old' is not a number"),
        ("file,age\n0.png,3\n1.png,4\n0.png,5\n", "lines 2 and 4 give 0.png different labels"),
    ],
    ids=[
        "missing",
        "empty",
        "no lines",
        "no file",
        "no task",
        "ragged",
        "ragged behind a separator",
        "same columns",
        "same columns in another case",
        "same columns of files",
        "path of Windows",
        "path of another machine",
        "no image",
        "no label",
        "contradiction",
    ],
)
def test_a_csv_file_that_cannot_be_used_is_an_error(
    numbered: Path, csv_file: WriteCsv, tmp_path: Path, text: str | None, message: str
) -> None:
    labels = tmp_path / "none.csv" if text is None else csv_file(text)
    with pytest.raises(OptionError, match=message):
        load_data(numbered, SIZE, TASKS, labels=labels)


def test_the_column_with_the_tasks_very_name_counts_and_others_may_share_a_name(
    numbered: Path, csv_file: WriteCsv
) -> None:
    labels = csv_file("file,AGE,age,note,note\n0.png,7,1,x,y\n1.png,8,2,x,y\n")
    assert load_data(numbered, SIZE, TASKS, labels=labels).labels["age"][:2].tolist() == [1, 2]


@pytest.mark.parametrize(
    "text",
    [
        '"sep=;"\nfile;age\n0.png;1,5\n',
        'sep=\n"file";age\n0.png;1,5\n',
        "sep=|\nfile|age\n0.png|1,5\n",
        "\n \t\nfile;age\n0.png;1,5\n",
        '"a,b,c,d";file;age\n1;0.png;1,5\n',
        '"a\n,b";file;age\n1;0.png;1,5\n',
        "file\tage\tnote, or none\n0.png\t1,5\ta, b\n",
    ],
    ids=["quoted", "left open", "another", "blank lines", "commas in a name", "a line end in a name", "tabs"],
)
@pytest.mark.parametrize("end", ["\n", "\r\n"], ids=["lf", "crlf"])
def test_the_separator_is_what_separates_the_names_of_the_columns(
    numbered: Path, csv_file: WriteCsv, text: str, end: str
) -> None:
    file = csv_file("")
    file.write_bytes(text.replace("\n", end).encode())
    assert load_data(numbered, SIZE, TASKS, labels=file).labels["age"][0] == 1.5


@pytest.mark.parametrize("cell", ["1_0", "1_000.5", "٣", "1e", ".", "1.2.3", "1,5,0", "infinity", "0x10", "1 500"])
def test_a_number_is_read_as_table_programs_write_it_or_not_at_all(cell: str) -> None:
    found, problems = parse_labels(AGE, ["2", cell], comma=True)
    assert found[0] == 2
    assert np.isnan(found[1])
    assert problems == {1: f"age {cell!r} is not a number"}
    assert parse_labels(RACE, ["2", "1_0"])[0].tolist() == [2, -1]


@pytest.mark.parametrize(
    ("cell", "value"),
    [("7", 7), ("-1.5", -1.5), ("+.5", 0.5), ("2.", 2), ("1E-3", 0.001), ("1,25", 1.25), ("1,500", 1.5)],
)
def test_numbers_of_every_form_are_read(cell: str, value: float) -> None:
    assert parse_labels(AGE, [cell], comma=True)[0].tolist() == [value]


def test_numbers_that_may_be_thousands_count_as_unknown_where_a_column_has_commas_and_points() -> None:
    found, problems = parse_labels(AGE, ["1.500", "2,5", "3.25", "4,500", "5"], comma=True)
    np.testing.assert_array_equal(found, [np.nan, 2.5, 3.25, np.nan, 5])
    assert problems.keys() == {0, 3}
    assert problems[0] == "age '1.500' is unclear, since the column has numbers with commas and with points"
    assert parse_labels(AGE, ["1.500", "2.5"], comma=True)[0].tolist() == [1.5, 2.5]
    assert parse_labels(AGE, ["1,500", "2,5"], comma=True)[0].tolist() == [1.5, 2.5]


def test_a_csv_file_that_is_not_utf8_is_an_error(numbered: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.csv").write_bytes("file,age\nmüller.png,3\n".encode("latin-1"))
    with pytest.raises(OptionError, match="not UTF-8 text"):
        load_data(numbered, SIZE, TASKS, labels=tmp_path / "labels.csv")


@pytest.mark.parametrize("cell", ["1e30", "1e400", "9" * 400, "-7", "0x10"])
def test_an_index_that_no_class_has_is_named_however_large(cell: str) -> None:
    found, problems = parse_labels(Task("race", "multiclass"), ["1", cell])
    assert found.tolist() == [1, -1]
    assert "is not an index" in problems[1]
