"""Predictions as cells of a table: one column per task."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping

import numpy as np

from mtl_deploy.runtime.arrays import Array
from mtl_deploy.runtime.predictions.decoding import Prediction

Cell = str | float | bytes | None


def cells(predictions: Mapping[str, Prediction]) -> dict[str, Cell]:
    """Return an image's cells by column.

    A number is a float, a class its label, with its probability in the column ``TASK.probability``. A map is an encoded array: of
    indices and masks a PNG of one channel, otherwise an ``.npy`` file. Everything else is JSON text, as
    :meth:`~mtl_deploy.runtime.predictions.decoding.Prediction.to_dict` gives it. What the network did not know (NaN) is None.
    """
    found: dict[str, Cell] = {}
    for name, prediction in predictions.items():
        if prediction.dense:
            found[name] = encoded(prediction.value)
        elif prediction.label is not None or prediction.probability is not None:
            found[name], found[f"{name}.probability"] = prediction.label, prediction.probability
        elif isinstance(prediction.value, (int, float)):
            found[name] = float(prediction.value) if prediction.finite else None
        else:
            found[name] = json.dumps(prediction.to_dict(), ensure_ascii=False, allow_nan=False)
    return found


def encoded(value: Array) -> bytes:
    """Return a map as a file's bytes: PNG for ``(H, W) uint8``, otherwise ``.npy``."""
    stream = io.BytesIO()
    if value.dtype == np.uint8 and value.ndim == 2:
        from PIL import Image

        Image.fromarray(value).save(stream, "PNG")
    else:
        np.save(stream, value, allow_pickle=False)
    return stream.getvalue()
