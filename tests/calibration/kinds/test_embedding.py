"""Pairs of images: read, kept through parts, judged as LFW does; cosines between precisions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import roc_auc_score, roc_curve

from mtl_deploy.calibration.accuracy.row_metrics import drop_interval, row_kind
from mtl_deploy.calibration.compare import task_differences
from mtl_deploy.calibration.data.dataset import load_data
from mtl_deploy.calibration.kinds.embedding import verification
from mtl_deploy.calibration.kinds.embedding.pairs import Pairs, read_pairs
from mtl_deploy.calibration.kinds.embedding.verification import (
    area,
    best_threshold,
    drawn_shares,
    folds_of,
    right_answers,
)
from mtl_deploy.runtime import ImageError, OptionError, Task
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature

RNG = np.random.default_rng(0)
TASK = Task("face", "embedding", size=8)
KIND = row_kind(TASK)
SIGNATURE = Signature((TASK,), Preprocessing(8, 8))


def people(count: int = 60, noise: float = 0.6) -> tuple[np.ndarray, np.ndarray]:
    """Return vectors of two images of each person, and pairs of the same and of different people in turn."""
    centres = RNG.normal(size=(count, 8))
    vectors = np.concatenate([centres, centres + noise * RNG.normal(size=centres.shape)])
    pairs = [(i, i + count, 1) for i in range(count)] + [(i, (i + 1) % count + count, 0) for i in range(count)]
    return vectors.astype(np.float32), np.array(sorted(pairs), np.int64)


def rows_of(vectors: np.ndarray, pairs: Pairs) -> np.ndarray:
    answers = KIND.answers(TASK, vectors, SIGNATURE)
    found = [KIND.row(TASK, answers[i], pairs.read(i)) for i in range(len(vectors)) if pairs.known[i]]
    return np.array(found)


def cosines_of(vectors: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return (unit[pairs[:, 0]] * unit[pairs[:, 1]]).sum(axis=1)


def test_the_best_threshold_is_as_right_as_the_best_of_scikit_learns() -> None:
    for seed in range(20):
        random = np.random.default_rng(seed)
        same = random.random(50) < 0.4
        scores = np.round(random.normal(size=50) + same, 1)  # with ties
        fpr, tpr, _ = roc_curve(same, scores, drop_intermediate=False)
        best = (tpr * same.sum() + (1 - fpr) * (~same).sum()).max()
        assert ((scores >= best_threshold(scores, same)) == same).sum() == round(best)
        assert area(scores, same) == pytest.approx(roc_auc_score(same, scores))
    assert best_threshold(np.array([0.1, 0.2]), np.array([True, True])) < 0.1
    assert best_threshold(np.array([0.1, 0.2]), np.array([False, False])) > 0.2
    assert np.isnan(area(np.array([0.1]), np.array([True])))


def test_ten_folds_are_lfws() -> None:
    """Ten sets of 300 pairs of the same and 300 of different people, one after the other, as LFW's file of pairs has them."""
    same = np.tile(np.repeat([True, False], 300), 10)
    assert folds_of(same).tolist() == np.repeat(np.arange(10), 600).tolist()
    scores = RNG.normal(size=6000) + 1.5 * same
    wanted = []
    grid = np.arange(-4, 6, 0.001)  # facenet's way: a grid of thresholds, here a finer one
    for fold in range(10):
        rest, own = np.repeat(np.arange(10), 600) != fold, np.repeat(np.arange(10), 600) == fold
        ordered = [np.sort(scores[rest & which]) for which in (same, ~same)]
        right = len(ordered[0]) - np.searchsorted(ordered[0], grid) + np.searchsorted(ordered[1], grid)
        wanted.append(((scores[own] >= grid[right.argmax()]) == same[own]).mean())
    assert right_answers(scores, same).mean() == pytest.approx(np.mean(wanted), abs=0.003)
    assert right_answers(scores, same).mean() < max((((scores >= t) == same).mean()) for t in grid[::10]) + 1e-9


def test_few_pairs_are_two_halves_each_judged_by_the_other() -> None:
    same = np.array([True, True, True, True, False, False, False, False])
    scores = np.array([0.9, 0.8, 0.3, 0.4, 0.1, 0.2, 0.35, 0.0])
    assert folds_of(same).tolist() == [0, 0, 1, 1, 0, 0, 1, 1]
    # of the second half 0.15 and 0.325... are best: the lowest; of the first half 0.5
    thresholds = {half: best_threshold(scores[folds_of(same) == half], same[folds_of(same) == half]) for half in (0, 1)}
    wanted = (scores >= np.where(folds_of(same) == 0, thresholds[1], thresholds[0])) == same
    assert right_answers(scores, same).tolist() == wanted.tolist()
    assert wanted.sum() < 8, "a threshold that was chosen on the pairs that it judges would be better"


def test_the_metrics_are_those_of_all_pairs() -> None:
    vectors, pairs = people()
    rows = rows_of(vectors, Pairs(np.arange(120), pairs))
    cosines, same = cosines_of(vectors, pairs), pairs[:, 2] == 1
    measured = KIND.measured(TASK, rows)
    assert measured["verification"] == right_answers(cosines, same).mean()
    assert 0.6 < measured["verification"] < 1
    assert measured["verification_auc"] == pytest.approx(roc_auc_score(same, cosines))
    shuffled = RNG.permutation(len(rows))
    assert KIND.measured(TASK, rows[shuffled]) == measured, "the order of images counts"
    drawn = KIND.drawn(TASK, rows, np.ones((1, len(rows))))
    assert drawn[0] == pytest.approx(measured["verification"])
    twice = np.bincount(RNG.integers(0, 120, 120), minlength=120).astype(float)
    repeated = np.repeat(np.arange(len(pairs)), twice[pairs[:, 0]].astype(int))
    shares = drawn_shares(cosines, same, twice[None, pairs[:, 0]])
    one_by_one = []  # as if the pairs stood in the file as often as they were drawn, without moving to other folds
    for fold in range(10):
        inside = folds_of(same)[repeated] == fold
        least = best_threshold(cosines[repeated][~inside], same[repeated][~inside])
        one_by_one += ((cosines[repeated][inside] >= least) == same[repeated][inside]).tolist()
    assert shares[0] == pytest.approx(np.mean(one_by_one), abs=1e-12)
    broken = rows.copy()
    broken[5, 4] = np.nan
    assert KIND.measured(TASK, broken)["verification"] == -np.inf
    assert drop_interval(TASK, broken, rows) == (np.inf, np.inf, np.inf)


def test_a_swapped_value_costs_what_it_costs_and_a_turned_space_nothing() -> None:
    vectors, pairs = people()
    kept = Pairs(np.arange(120), pairs)
    turn, _ = np.linalg.qr(RNG.normal(size=(8, 8)))
    rows = rows_of(vectors, kept)
    assert drop_interval(TASK, rows_of((vectors @ turn).astype(np.float32), kept), rows)[0] == pytest.approx(
        0, abs=0.02
    )
    noisy = vectors + 2 * RNG.normal(size=vectors.shape).astype(np.float32)
    drop, low, high = drop_interval(TASK, rows_of(noisy, kept), rows)
    assert 0 < low < drop < high


def test_parts_keep_the_pairs_whose_images_both_remain() -> None:
    vectors, pairs = people()
    whole = Pairs(np.arange(120), pairs)
    chosen = np.sort(RNG.permutation(120)[:60])
    part = whole.part(chosen)
    inside = pairs[np.isin(pairs[:, 0], chosen) & np.isin(pairs[:, 1], chosen)]
    assert part.known.tolist() == [bool(np.isin(number, inside[:, :2])) for number in chosen]
    rows = rows_of(vectors[chosen], part)
    measured = KIND.measured(TASK, rows)
    assert measured["verification_auc"] == pytest.approx(roc_auc_score(inside[:, 2], cosines_of(vectors, inside)))
    assert part.digest != whole.digest
    again = part.part(np.flatnonzero(part.known))
    assert np.array_equal(rows_of(vectors[chosen][part.known], again), rows, equal_nan=True)


def test_the_best_constant_calls_all_pairs_the_same_or_different() -> None:
    vectors, pairs = people()
    rows = rows_of(vectors, Pairs(np.arange(120), pairs[np.r_[0:120, 0:0]]))
    usual = KIND.usual_rows(TASK, rows)
    assert usual is not None
    assert KIND.measured(TASK, usual.per_image)["verification"] == pytest.approx(0.5, abs=0.01)
    assert usual.answer == "calling every pair the same"


def test_cosines_say_how_far_two_precisions_are_apart() -> None:
    one, other = KIND.answers(TASK, np.array([[3.0, 0, 0, 0, 0, 0, 0, 0], [3, 4, 0, 0, 0, 0, 0, 0]]), SIGNATURE)
    assert KIND.apart(TASK, one, other) == pytest.approx((0.4, 0.4))
    assert KIND.apart(TASK, one, one)[0] == 0
    assert KIND.apart(TASK, one, one * np.nan)[0] == np.inf


def photos(folder: Path) -> list[Path]:
    (folder / "a").mkdir()
    paths = [folder / "a" / "1.png", folder / "a" / "2.png", folder / "3.png", folder / "4.png"]
    for number, path in enumerate(paths):
        Image.fromarray(np.full((8, 8, 3), 60 * number, np.uint8)).save(path)
    return paths


def test_pairs_are_read_from_a_folder_of_labels(tmp_path: Path) -> None:
    photos(tmp_path)
    (tmp_path / "face.csv").write_text("a,b,same\na/1.png,2.png,1\n3.png,a\\1.png,0\n3.png,gone.png,0\n")
    data = load_data(tmp_path, Preprocessing(8, 8), [TASK], labels=tmp_path)
    found: Any = data.dense["face"]
    assert len(found) == 4
    assert np.count_nonzero(found.known) == 3
    assert "face.csv: 1 of 3 pairs lack an image (gone.png)" in data.warnings
    with pytest.raises(OptionError, match=r"give a folder \(pairs of images are read from TASK\.csv in it\)"):
        load_data(tmp_path, Preprocessing(8, 8), [TASK], labels=tmp_path / "face.csv")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "pairs need a first line a,b,same"),
        ("file,face\n1.png,2", "begins with 'file,face'"),
        ("a,b,same\n1.png,2.png", "line 2 has 2 cells"),
        ("a,b,same\n1.png,2.png,maybe", "line 2: same is 'maybe'"),
        ("a,b,same\n1.png,1.png,1", "1.png is paired with itself"),
        ("a,b,same\n1.png,a/1.png,1", "1.png is paired with itself"),
        ("a,b,same\n1.png,2.png,1\n2.png,3.png,yes", "all 2 pairs show the same"),
        ("a,b,same\n1.png,x.png,1\ny.png,2.png,0", "none of its 2 pairs has both images; the first lacks 'x.png'"),
    ],
)
def test_a_file_of_another_form_is_refused(tmp_path: Path, text: str, message: str) -> None:
    paths = photos(tmp_path)
    (tmp_path / "face.csv").write_text(text)
    with pytest.raises(OptionError, match=message):
        read_pairs(tmp_path / "face.csv", paths, (tmp_path,))


def test_pairs_of_an_array(tmp_path: Path) -> None:
    images = RNG.integers(0, 256, (5, 8, 8, 3), dtype=np.uint8)
    pairs = np.array([[0, 1, 1], [1, 2, 0], [3, 4, 1], [0, 4, 0], [2, 4, 1], [2, 3, 0]])
    np.savez(tmp_path / "a.npz", images=images, **{"labels/face": pairs})
    found: Any = load_data(tmp_path / "a.npz", Preprocessing(8, 8), [TASK]).dense["face"]
    assert found.known.all()
    assert found.pairs.tolist() == pairs.tolist()
    for wrong, message in (
        (pairs[:, :2], "pairs are whole numbers"),
        (pairs * 1.5, "pairs are whole numbers"),
        (pairs - 1, "positions are from 0 on"),
        (np.array([[1, 1, 1]]), "paired with itself"),
        (pairs + np.array([9, 9, 0]), "none of its 6 pairs has both of its images"),
    ):
        np.savez(tmp_path / "b.npz", images=images, **{"labels/face": wrong})
        with pytest.raises((ImageError, OptionError), match=message):
            load_data(tmp_path / "b.npz", Preprocessing(8, 8), [TASK])


def test_networks_of_other_sizes_are_compared_by_their_pairs() -> None:
    vectors, pairs = people()
    kept = Pairs(np.arange(120), pairs)
    longer = np.concatenate([vectors, vectors], axis=1)
    rows = rows_of(vectors, kept)
    assert drop_interval(TASK, rows_of(longer, kept), rows)[0] == pytest.approx(0, abs=0.02)
    assert task_differences([TASK], [Task("face", "embedding", size=16)]) == []


def test_draws_vary_as_samples_of_pairs_do() -> None:
    """With thresholds that stay, draws would vary less than samples do: their standard deviation would be 0.027 here."""
    found, drawn = [], []
    for seed in range(150):
        random = np.random.default_rng(seed)
        same = np.arange(300) % 2 == 0
        scores = np.tanh(random.normal(size=300) + same)
        found.append(right_answers(scores, same).mean())
        if seed < 8:
            weights = random.multinomial(300, np.full(300, 1 / 300), 200).astype(float)
            drawn.append(drawn_shares(scores, same, weights).std())
    assert np.std(found) == pytest.approx(0.032, abs=0.002)
    assert 1 <= np.mean(drawn) / np.std(found) < 1.25


def test_draws_of_very_many_pairs_keep_their_thresholds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(verification, "MANY", 100)
    same = np.arange(300) % 2 == 0
    scores = np.tanh(RNG.normal(size=300) + same)
    weights = RNG.multinomial(300, np.full(300, 1 / 300), 5).astype(float)
    wanted = weights @ right_answers(scores, same) / 300
    np.testing.assert_allclose(drawn_shares(scores, same, weights), wanted)
