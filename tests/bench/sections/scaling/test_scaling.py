"""Scaling with threads and with heads."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from mtl_deploy.bench.contestants.pair import Settings
from mtl_deploy.bench.sections.scaling.heads import HeadsRow, fit_heads, measure_heads
from mtl_deploy.bench.sections.scaling.heads_section import HeadsSection
from mtl_deploy.bench.sections.scaling.threads import ThreadScaling, measure_threads
from mtl_deploy.bench.sections.scaling.threads_section import ThreadsSection
from mtl_deploy.bench.statistics.nested import Interval, Nested
from tests.bench.printed import printed
from tests.bench.synthetic import nested

PATH = Path("model.mtl")


def test_each_number_of_threads_is_measured_once_and_in_order() -> None:
    asked: list[Settings] = []
    said: list[str] = []

    def measure(path: Path, settings: Settings) -> Mapping[str, Nested]:
        assert path == PATH
        assert settings.threads
        asked.append(settings)
        rng = np.random.default_rng(0)
        return {"shared": nested(10.0 / settings.threads, rng), "separate": nested(20.0 / settings.threads, rng)}

    found = measure_threads([4, 1, 2, 1], measure, PATH, Settings(spinning=True), batch=2, progress=said.append)
    assert asked == [Settings(threads=number, spinning=True) for number in (1, 2, 4)]
    assert said == ["Measuring with 1 thread", "Measuring with 2 threads", "Measuring with 4 threads"]
    assert [row.threads for row in found.rows] == [1, 2, 4]
    for row in found.rows:
        assert row.ratio.value == pytest.approx(2, rel=0.01)
        assert row.images_per_s["shared"] == pytest.approx(200 * row.threads, rel=0.01)
        p50 = row.p50_ms["separate"]
        assert p50 is not None
        assert p50.value == pytest.approx(20 / row.threads, rel=0.01)
    document = found.to_dict()
    assert [row["threads"] for row in document["rows"]] == [1, 2, 4]
    assert set(document["rows"][0]["contestants"]["shared"]) == {"p50_ms", "images_per_s"}
    text = printed(ThreadsSection(), found)
    assert "shared p50, ms" in text
    assert len(text.splitlines()) == 5
    assert ThreadScaling(()).to_dict() == {"rows": []}


def test_too_few_calls_for_a_median_are_said_so() -> None:
    def measure(path: Path, settings: Settings) -> Mapping[str, Nested]:
        return {name: [[np.array([ms, ms])]] for name, ms in (("shared", 1.0), ("separate", 2.0))}

    found = measure_threads([1], measure, PATH, Settings())
    assert found.rows[0].p50_ms == {"shared": None, "separate": None}
    assert "n/a" in printed(ThreadsSection(), found)
    assert found.to_dict()["rows"][0]["contestants"]["shared"]["p50_ms"] is None


def until(last: Path | int) -> Callable[[Path, Settings], Mapping[str, Nested]]:
    """Measure until a bundle, or a number of threads, is asked for: there Ctrl-C comes."""

    def measure(path: Path, settings: Settings) -> Mapping[str, Nested]:
        if last in (path, settings.threads):
            raise KeyboardInterrupt
        rng = np.random.default_rng(0)
        return {"shared": nested(10.0, rng), "separate": nested(20.0, rng)}

    return measure


def test_an_interrupt_keeps_the_rows_that_were_whole(make_bundle: Callable[..., Path], tmp_path: Path) -> None:
    threads = measure_threads([1, 2, 4], until(4), PATH, Settings())
    assert [row.threads for row in threads.rows] == [1, 2]
    assert threads.warnings == ("the scaling over threads was interrupted after 2 numbers of threads",)
    made = {number: make_bundle(tmp_path / f"{number}.mtl", work=number) for number in (1, 2)}
    heads = measure_heads(made, until(made[2]), Settings(("CPU",), 1))
    assert [row.heads for row in heads.rows] == [1]
    assert heads.fit is None
    assert heads.warnings == ("the scaling over heads was interrupted after 1 number of heads",)
    assert threads.interrupted
    assert heads.interrupted
    with pytest.raises(KeyboardInterrupt):
        measure_threads([1], until(1), PATH, Settings())
    with pytest.raises(KeyboardInterrupt):
        measure_heads(made, until(made[1]), Settings(("CPU",), 1))


def row(heads: int, shared: float, separate: float) -> HeadsRow:
    exact = [Interval(value, value, value) for value in (shared, separate, separate / shared)]
    return HeadsRow(heads, exact[0], exact[1], exact[2], heads * 1.0)


def test_the_fit_recovers_backbone_head_and_model() -> None:
    fit = fit_heads([row(n, 20 + 1.5 * n, 21.5 * n) for n in (1, 2, 4, 8)])
    assert fit is not None
    assert (fit.backbone_ms, fit.head_ms, fit.model_ms) == pytest.approx((20, 1.5, 21.5))
    assert fit.largest_residual == pytest.approx(0, abs=1e-9)
    assert fit_heads([row(1, 20, 20)]) is None


def test_the_largest_residual_is_the_distance_to_a_measured_time() -> None:
    fit = fit_heads([row(1, 10, 10), row(2, 10, 20), row(3, 13, 30)])
    assert fit is not None
    assert (fit.backbone_ms, fit.head_ms) == pytest.approx((8, 1.5))
    assert fit.largest_residual == pytest.approx(1)
    assert fit.largest_residual_share == pytest.approx(0.1)


def test_heads_are_measured_on_bundles_with_the_ideal_of_their_manifests(
    make_bundle: Callable[..., Path], tmp_path: Path
) -> None:
    made = {number: make_bundle(tmp_path / f"{number}.mtl", work=number) for number in (2, 1)}
    asked: list[Path] = []

    def measure(path: Path, settings: Settings) -> Mapping[str, Nested]:
        number = next(n for n, one in made.items() if one == path)
        asked.append(path)
        rng = np.random.default_rng(number)
        return {"shared": nested(20.0 + number, rng), "separate": nested(21.0 * number, rng)}

    found = measure_heads(made, measure, Settings(("CPU",), 1), precision="fp32")
    assert asked == [made[1], made[2]]
    for one in found.rows:
        shared, separate = 15 + 5184 * one.heads + 1000, 15 + 3 * (5184 * one.heads + 1000)
        assert one.ideal == pytest.approx(separate / shared)
        assert one.shared_ms.value == pytest.approx(20 + one.heads, rel=0.01)
        assert one.ratio.value == pytest.approx(21 * one.heads / (20 + one.heads), rel=0.01)
    assert found.fit is not None
    assert found.warnings == ()
    document = found.to_dict()
    assert set(document["rows"][0]) == {"heads", "shared_ms", "separate_ms", "ratio", "ideal"}
    assert set(document["fit"]) >= {"backbone_ms", "head_ms", "model_ms", "largest_residual"}
    assert "With n heads, shared takes " in printed(HeadsSection(), found)


def test_cost_that_does_not_grow_so_is_a_warning() -> None:
    from mtl_deploy.bench.sections.scaling.heads import HeadScaling

    rows = [row(1, 10, 10), row(2, 10, 20), row(3, 40, 30)]
    (warning,) = HeadScaling(tuple(rows), fit_heads(rows)).warnings
    assert warning.startswith("cost does not grow as backbone + n heads here")
