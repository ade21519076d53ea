from __future__ import annotations

import numpy as np
import pytest

from mtl_deploy.runtime.images.batches import pieces

IMAGES = np.arange(7, dtype=np.float32).reshape(7, 1)


@pytest.mark.parametrize(
    ("size", "least", "expected"),
    [
        (3, 1, [[0, 1, 2], [3, 4, 5], [6]]),
        (3, 3, [[0, 1, 2], [3, 4, 5], [6, 6, 6]]),
        (4, 2, [[0, 1, 2, 3], [4, 5, 6]]),
        (5, 4, [[0, 1, 2, 3, 4], [5, 6, 6, 6]]),
        (7, 7, [[0, 1, 2, 3, 4, 5, 6]]),
        (9, 8, [[0, 1, 2, 3, 4, 5, 6, 6]]),
    ],
)
def test_batches_have_the_size_and_the_last_one_is_filled_with_its_last_image(
    size: int, least: int, expected: list[list[int]]
) -> None:
    found = list(pieces(IMAGES, size, least=least))
    assert [piece.ravel().tolist() for piece in found] == expected
    assert all(piece.dtype == np.float32 for piece in found)


def test_nothing_is_copied_but_to_fill_the_last_batch() -> None:
    shared = [np.shares_memory(piece, IMAGES) for piece in pieces(IMAGES, 3, least=2)]
    assert shared == [True, True, False]
