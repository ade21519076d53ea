"""The small validator agrees with the jsonschema package on our schemas, and says where a document is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from random import Random
from typing import Any

import pytest
from jsonschema import Draft202012Validator
from jsonschema.validators import extend

from mtl_deploy.bench.results.result_file import readable_schema
from mtl_deploy.calibration.observe.cache import SCHEMA as CACHE
from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.schema import ENGINE, MANIFEST, SIGNATURE, TASK
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.files.json_schema import KEYWORDS, NOTES, Schema, check, is_of
from mtl_deploy.runtime.files.reading import DocumentError
from tests.attacks.mutations import EXTREMES, damaged_json
from tests.bench.documents import document as result

MakeBundle = Callable[..., Path]
SCHEMAS = {
    "manifest": MANIFEST,
    "signature": SIGNATURE,
    "task": TASK,
    "engine": ENGINE,
    "cache": CACHE,
    "result": readable_schema(),
}
MUTANTS = 500  # of each kind
RECORD = {
    "library": "tensorrt", "version": "10.3.0.26", "compute_capabilities": ["8.6", "8.7"], "gpu": None, "driver": "12.6",
    "hardware_compatibility": "none", "version_compatible": False, "batch_opt": 8, "source": "fp16.onnx",
    "source_sha256": "0" * 64, "layers": {"fp16": 20}, "warnings": ["slow"],
}  # fmt: skip


def validator(schema: Any) -> Draft202012Validator:
    """Return jsonschema's, with our types: an integer has no point, and a number is one that JSON can hold and 64 bits too."""
    checker = Draft202012Validator.TYPE_CHECKER
    for kind in ("integer", "number", "object", "array", "string", "boolean", "null"):
        checker = checker.redefine(kind, lambda _, value, kind=kind: is_of(kind, value))
    return extend(Draft202012Validator, type_checker=checker)(json.loads(json.dumps(schema)))


def sound(make_bundle: MakeBundle) -> dict[str, Any]:
    manifest = json.loads((make_bundle() / "manifest.json").read_text())
    ends = [-1.5, 2.0]
    cells = [
        {
            "task": "age", "variant": "int8", "samples": 3, "metrics": {"mae": 1.5}, "drop": "inf", "drop_low": None,
            "drop_high": 2, "agreement": None, "mean_error": 0.5, "max_error": "nan", "unit": "years",
        },
    ]  # fmt: skip
    whole = manifest | {
        "sharing": {"backbone_copies": 3, "shares_backbone": True, "multiply_adds": {"shared": 5}, "ideal_ratio": 2.5},
        "verification": [{"artifact": "fp32.onnx", "task": "age", "samples": 3, "max_error": 1e-6, "agreement": None}],
        "provenance": {"checkpoint": {"seen": "a program"}, "notes": ["slow"]},
        "calibration": {
            "path": "calibration.json",
            "kept": ["conv"],
            "left_out": {"files": 1, "first": {"a.png": "gone"}},
        },
        "accuracy": {"labelled": True, "cells": cells},
    }
    whole["artifacts"][0]["details"] = RECORD
    return {
        "manifest": whole,
        "signature": manifest["signature"],
        "task": manifest["signature"]["tasks"][1] | {"valid_range": None, "stride": 0, "argmax": True},
        "engine": RECORD,
        "cache": {
            "version": 2, "graph_sha256": "0", "data_digest": "1", "ranges": {"cpu": {"mse": {"x": ends, "y": ends}}},
            "observed": {"x": ends, "y": None},
        },
        "result": result(),
    }  # fmt: skip


@pytest.mark.parametrize("name", SCHEMAS)
def test_it_agrees_with_jsonschema_on_damaged_documents(name: str, make_bundle: MakeBundle) -> None:
    original = json.dumps(sound(make_bundle)[name]).encode()
    theirs = validator(SCHEMAS[name])
    ours_refused = 0
    check(json.loads(original), SCHEMAS[name])
    for number in range(MUTANTS):
        try:
            mutant = json.loads(damaged_json(original, Random(f"{name} {number}")))
        except (ValueError, RecursionError):
            continue
        try:
            check(mutant, SCHEMAS[name])
            refused = None
        except DocumentError as error:
            refused = error
        except RecursionError:
            continue
        expected = list(theirs.iter_errors(mutant))
        assert (refused is not None) == bool(expected), (refused, expected[:1], number)
        if refused is not None:
            ours_refused += 1
            assert any(_leads_to(error, refused.path) for error in expected), (refused, expected)
    assert ours_refused > MUTANTS / 20  # otherwise nothing was compared


def _leads_to(error: Any, path: list[Any]) -> bool:
    """Whether jsonschema found something wrong at our place, or above it where it looks at branches."""
    found = list(error.absolute_path)
    return found == path[: len(found)] if error.context else found == path


def walk(schema: Schema) -> Iterator[Schema]:
    """Yield a schema and all schemas inside it."""
    yield schema
    for key in ("properties", "$defs"):
        for inner in schema.get(key, {}).values():
            yield from walk(inner)
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), Mapping):
            yield from walk(schema[key])
    for inner in schema.get("anyOf", ()):
        yield from walk(inner)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas_and_use_what_the_validator_knows(name: str) -> None:
    Draft202012Validator.check_schema(json.loads(json.dumps(SCHEMAS[name])))
    for inner in walk(SCHEMAS[name]):
        assert set(inner) <= KEYWORDS | NOTES


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["artifacts"][2].update(batch_min=0), "artifacts[2].batch_min: 0 is less than 1"),
        (
            lambda m: m["artifacts"][0].update(batch_min=10**12),
            "artifacts[0].batch_min: 1000000000000 is more than 65536",
        ),
        (
            lambda m: m["artifacts"][0].update(batch_max="8"),
            "artifacts[0].batch_max: '8' is not a whole number, nor null",
        ),
        (lambda m: m["artifacts"][0].update(batch_min=True), "artifacts[0].batch_min: true is not a whole number"),
        (lambda m: m["artifacts"][1].update(size_bytes=1.5), "artifacts[1].size_bytes: 1.5 is not a whole number"),
        (lambda m: m["artifacts"][1].update(path=3), "artifacts[1].path: 3 is not text"),
        (
            lambda m: m["artifacts"][1].update(path="a\0b"),
            "artifacts[1].path: 'a\\x00b' is not a path inside the bundle",
        ),
        (lambda m: m["artifacts"][1].update(path=""), "artifacts[1].path: empty"),
        (lambda m: m["artifacts"][1].pop("sha256"), "artifacts[1]: field 'sha256' is missing"),
        (lambda m: m.update(reference={"path": None}), "reference.path: null is not text"),
        (lambda m: m.update(provenance={"notes": "slow"}), "provenance.notes: 'slow' is not a list"),
    ],
)
def test_an_error_names_the_place(change: Callable[[Any], Any], message: str, make_bundle: MakeBundle) -> None:
    manifest = sound(make_bundle)["manifest"]
    change(manifest)
    with pytest.raises(DocumentError) as caught:
        check(manifest, MANIFEST)
    assert str(caught.value) == message


def test_an_errors_path_quotes_what_is_no_name() -> None:
    with pytest.raises(DocumentError) as caught:
        check({"a\x1b b": [1, "x"]}, {"additionalProperties": {"items": {"type": "integer"}}})
    assert str(caught.value) == "['a\\x1b b'][1]: 'x' is not a whole number"


@pytest.mark.parametrize("value", EXTREMES, ids=lambda value: repr(value)[:20])
def test_types_are_jsons(value: Any) -> None:
    kinds = [kind for kind in ("object", "array", "string", "number", "boolean", "null") if is_of(kind, value)]
    assert len(kinds) <= 1
    assert kinds or (
        isinstance(value, (int, float)) and not -(2**63) < value < 2**63
    )  # of no type: not finite, or too large


def test_the_schemas_name_every_field_that_records_have() -> None:
    """A field that none of them names is read unchecked."""
    preprocessing = Preprocessing(8, 8).to_dict()
    assert set(preprocessing) <= set(SIGNATURE["properties"]["preprocessing"]["properties"])
    tasks = [
        Task("a", "segmentation", labels=("x", "y"), size=2, stride=4, activation="softmax", argmax=False),
        Task("b", "depth", unit="m", size=1, valid_range=(0.5, 10.0), scale=2.0, offset=1.0),
        Task("c", "binary", labels=("x", "y"), size=1, threshold=0.4),
    ]
    for task in tasks:
        assert set(task.to_dict()) <= set(TASK["properties"])
    with pytest.raises(DocumentError, match=r"preprocessing\.resize: 5 is not text"):
        check(
            {
                "version": 1,
                "tasks": [tasks[0].to_dict()],
                "outputs": "logits",
                "preprocessing": preprocessing | {"resize": 5},
            },
            SIGNATURE,
        )
    with pytest.raises(DocumentError, match=r"preprocessing\.channels"):
        check(
            {
                "version": 1,
                "tasks": [tasks[0].to_dict()],
                "outputs": "logits",
                "preprocessing": preprocessing | {"channels": "GBR"},
            },
            SIGNATURE,
        )
