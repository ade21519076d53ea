from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from mtl_deploy.runtime import load
from mtl_deploy.runtime.serving.answers import answers


def encoded(seed: int, height: int, width: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "PNG")
    return stream.getvalue()


IMAGES = [encoded(number, 8 + number, 20 - number) for number in range(7)]


@pytest.mark.parametrize("options", [{}, {"batch_max": 3}, {"batch": 4}])
def test_each_image_has_the_answer_it_would_have_alone(make_bundle: Any, options: dict[str, int]) -> None:
    with load(make_bundle(**options)) as model:
        found = answers(model, IMAGES, ["gender", "race"])
        alone = [model.predict(image, tasks=["gender", "race"]) for image in IMAGES]
    assert [answer.predictions for answer in found] == alone
    for answer in found:
        assert {name: values.shape for name, values in answer.outputs.items()} == {"gender": (1,), "race": (3,)}
        assert answer.outputs["race"][answer.predictions["race"].value] == answer.outputs["race"].max()


def test_an_image_that_cannot_be_read_takes_no_other_with_it(make_bundle: Any, tmp_path: Path) -> None:
    given: list[Any] = [*IMAGES[:2], b"no image", tmp_path / "missing.png", np.zeros((4, 4), np.float64), IMAGES[2]]
    with load(make_bundle()) as model:
        found = answers(model, given, ["age"])
        expected = model.predict([IMAGES[0], IMAGES[1], IMAGES[2]], tasks=["age"])
    assert [answer.error is None for answer in found] == [True, True, False, False, False, True]
    assert [answer.predictions for answer in found if answer.error is None] == expected
    assert "not an image" in str(found[2].error)
    assert "missing.png" in str(found[3].error)
    assert not found[2].predictions
    assert not found[2].outputs


def test_nothing_but_damaged_images_and_nothing_at_all(make_bundle: Any) -> None:
    with load(make_bundle()) as model:
        assert [answer.predictions for answer in answers(model, [b"no image"], ["age"])] == [{}]
        assert answers(model, [], ["age"]) == []
        (batch,) = answers(model, [np.zeros((2, 8, 8, 3), np.uint8)], ["age"])
    assert "one image is expected" in str(batch.error)
