"""Embeddings: unit length, words, JSON, misuse."""

from __future__ import annotations

import json

import numpy as np
import pytest

from mtl_deploy.runtime import Task, TaskError
from mtl_deploy.runtime.bundle.task_text import parse_task
from mtl_deploy.runtime.predictions.decoding import decode

RAW = np.random.default_rng(0).normal(size=(3, 128)).astype(np.float32)


def embedding(size: int = 128, *, unit: bool = True) -> Task:
    return Task.from_dict({"name": "face", "kind": "embedding", "size": size, "unit_length": unit})


def test_a_vector_is_made_unit_length_where_the_task_says_so() -> None:
    wanted = RAW / np.linalg.norm(RAW, axis=1, keepdims=True)
    found = decode(embedding(), RAW, "logits")
    np.testing.assert_allclose([each.value for each in found], wanted, rtol=1e-6)
    assert decode(embedding(), found[0].value[None], "decoded") == found[:1]
    np.testing.assert_array_equal(decode(embedding(unit=False), RAW, "logits")[1].value, RAW[1])
    assert not decode(embedding(), np.zeros((1, 128), np.float32), "logits")[0].value.any()


def test_words_have_the_head_and_json_the_whole() -> None:
    (found,) = decode(embedding(5), np.float32([[3, 0, 4, 0, 0]]), "logits")
    assert str(found) == "5 values of length 1: 0.6, 0, 0.8, 0, ..."
    assert found.to_dict() == {"value": pytest.approx([0.6, 0, 0.8, 0, 0]), "length": pytest.approx(1)}
    json.dumps(found.to_dict())
    (long,) = decode(embedding(), RAW[:1], "logits")
    assert len(long.to_dict()["value"]) == 128  # type: ignore[arg-type]
    assert len(str(long)) < 80
    (broken,) = decode(embedding(2), np.float32([[np.nan, 1]]), "decoded")
    assert broken.to_dict() == {"value": [None, 1.0], "length": None, "finite": False}


def test_fields_and_misuse() -> None:
    assert parse_task("face=embedding;unit_length=true").options.unit_length
    assert not parse_task("face=embedding").options.unit_length
    assert Task.from_dict(json.loads(json.dumps(embedding().to_dict()))) == embedding()
    for text, message in (
        ("face=embedding;unit_length=yes", "unit_length cannot be 'yes'; write true or false"),
        ("face=embedding;scale=2", "scale and offset, this is embedding"),
        ("face=embedding;threshold=0.3", "has no threshold"),
    ):
        with pytest.raises(TaskError, match=message):
            parse_task(text)
    with pytest.raises(TaskError, match="one value has no direction"):
        embedding(1)
