"""What a manifest, a signature, a task and an engine's record look like: JSON Schemas (draft 2020-12), in this one place.

:mod:`mtl_deploy.runtime.files.json_schema` checks documents against them. They say no more than what readers rely on: unknown
fields are ignored, so that bundles of later releases load, and fields that earlier releases did not write may be missing. What
concerns several fields (the order of a batch range, labels that match a size) is checked where the records are made.
"""

from __future__ import annotations

from mtl_deploy.runtime.files.json_schema import Schema

MOST_SIDE = 1 << 14
"""Pixels of one side of an image."""
MOST_PIXELS = 1 << 26
"""Pixels of a network's input."""
MOST_CHANNELS = 1 << 10
"""Of an image."""
MOST_BATCH = 1 << 16
MOST_SIZE = 1 << 24
"""Values per sample."""
MOST_LENGTH = 1 << 40
"""A tensor's size along one dimension is less."""
MOST_OUTPUTS = 256
"""Outputs of the network that make up one task's."""

_TEXT: Schema = {"type": "string"}
_OBJECT: Schema = {"type": "object"}
_FLAG: Schema = {"type": "boolean"}
_NUMBER: Schema = {"type": "number"}
_COUNT: Schema = {"type": "integer", "minimum": 0}
_SHA256: Schema = {"type": "string", "maxLength": 128}


def _nullable(schema: Schema) -> Schema:
    return {"anyOf": [schema, {"type": "null"}]}


def _list(items: Schema, **bounds: int) -> Schema:
    return {"type": "array", "items": items, **bounds}


def _object(required: str = "", **properties: Schema) -> Schema:
    return {"type": "object", "required": required.split(), "properties": properties}


def _map(values: Schema) -> Schema:
    return {"type": "object", "additionalProperties": values}


def _whole(least: int, most: int) -> Schema:
    return {"type": "integer", "minimum": least, "maximum": most}


_PATH: Schema = {
    "description": "a path inside the bundle",
    "type": "string",
    "minLength": 1,
    "maxLength": 1024,
    "pattern": "^[^\\x00]*$",  # that it stays inside is checked where it is used
}
_FILE: dict[str, Schema] = {"path": _PATH, "sha256": _SHA256, "size_bytes": _COUNT}
_COLOUR: Schema = _list({"type": "number", "minimum": -1e6, "maximum": 1e6}, minItems=1, maxItems=MOST_CHANNELS)
_SPREAD: Schema = _list({"type": "number", "exclusiveMinimum": 0, "maximum": 1e6}, minItems=1, maxItems=MOST_CHANNELS)
_WRITTEN_NUMBER: Schema = {"anyOf": [_NUMBER, {"enum": ["inf", "-inf", "nan"]}]}

TASK: Schema = _object(
    "name kind",
    name={"type": "string", "minLength": 1, "maxLength": 200},
    kind=_TEXT,
    labels=_list(_TEXT),
    unit=_nullable(_TEXT),
    output={
        "anyOf": [
            {"type": ["string", "integer", "null"]},
            _list({"type": ["string", "integer"]}, minItems=1, maxItems=MOST_OUTPUTS),
        ]
    },
    columns=_nullable(_list(_whole(0, MOST_SIZE), minItems=2, maxItems=2)),
    shape=_list(_whole(1, MOST_SIZE), maxItems=8),
    size=_whole(0, MOST_SIZE),
    scale=_NUMBER,
    offset=_NUMBER,
    threshold=_NUMBER,
    stride=_whole(0, MOST_SIDE),
    upsample=_FLAG,
    argmax=_FLAG,
    activation=_nullable(_TEXT),
    valid_range=_nullable(_list(_NUMBER, minItems=2, maxItems=2)),
)
"""A task: in a signature, or a table of a task file."""

PREPROCESSING: Schema = _object(
    "height width mean std input",
    height=_whole(1, MOST_SIDE),
    width=_whole(1, MOST_SIDE),
    mean=_COLOUR,
    std=_SPREAD,
    input=_TEXT,
    fit=_TEXT,
    multiple=_whole(0, MOST_SIDE),
    resize_to=_list(_whole(1, MOST_SIDE), maxItems=2),
    resize=_TEXT,
    channels={
        "description": "RGB, BGR, gray or the number of other channels",
        "anyOf": [{"enum": ["RGB", "BGR", "gray", "rgb", "bgr"]}, _whole(1, MOST_CHANNELS)],
    },
    source=_nullable(
        _object(
            "height width layout",
            height=_whole(1, MOST_SIDE),
            width=_whole(1, MOST_SIDE),
            layout=_TEXT,
            colour=_nullable(_TEXT),
        )
    ),
)

SIGNATURE: Schema = _object(
    "version tasks preprocessing outputs",
    version={"type": "integer"},
    tasks=_list(TASK, minItems=1),
    preprocessing=PREPROCESSING,
    outputs=_TEXT,
)
"""A graph's ONNX metadata, and a part of the manifest."""

_ENGINE_FIELDS: dict[str, Schema] = {
    "library": {"enum": ["tensorrt", "tensorrt-rtx"]},
    "version": {"description": "a version such as 10.3.0", "type": "string", "pattern": "^[0-9]{1,9}(\\.[0-9]{1,9})*"},
    "compute_capabilities": _list(
        {"description": "a compute capability such as 8.6", "type": "string", "pattern": "^[0-9]{1,3}\\.[0-9]{1,3}$"}
    ),
    "gpu": _nullable(_TEXT),
    "driver": {"type": ["string", "integer", "number", "null"]},
    "hardware_compatibility": {"enum": ["none", "ampere_plus", "same_compute_capability"]},
    "version_compatible": _FLAG,
    "batch_opt": _whole(1, MOST_BATCH),
    "source": _PATH,
    "source_sha256": _SHA256,
}
ENGINE: Schema = {"type": "object", "required": list(_ENGINE_FIELDS), "properties": _ENGINE_FIELDS}
"""An engine's record: the ``details`` of its artifact."""

_DETAILS: Schema = _object(
    summary=_TEXT,
    share=_NUMBER,
    fit=_nullable(_object("before keep", before=_map(_NUMBER), keep=_list(_TEXT), joins=_list(_TEXT))),
    search=_object(summary=_TEXT, latency=_NUMBER, budgets=_map(_NUMBER)),
    source=_TEXT,
    settings=_OBJECT,
    layers=_nullable(_map(_COUNT)),
    image_size=_nullable(_list(_whole(1, MOST_SIDE), minItems=2, maxItems=2)),
    warnings=_list(_TEXT),
)
_RUNNABLE = "path role tasks precision backend batch_min batch_max opset sha256 size_bytes parameters multiply_adds"
_RUNNABLE_FIELDS: dict[str, Schema] = {
    **_FILE,
    "role": _TEXT,
    "tasks": _list(_TEXT),
    "precision": _TEXT,
    "backend": _TEXT,
    "batch_min": _whole(1, MOST_BATCH),
    "batch_max": _nullable(_whole(1, MOST_BATCH)),
    "opset": _nullable(_COUNT),
    "parameters": _COUNT,
    "multiply_adds": _COUNT,
    "details": _DETAILS,
}
_ARTIFACT: Schema = _object(_RUNNABLE, **_RUNNABLE_FIELDS)
_BORDER: Schema = _object(
    "name dtype one more",
    name={"type": "string", "minLength": 1},
    dtype={"enum": ["float32", "float16", "uint8", "int8", "int32", "int64", "bool"]},
    one=_list(_whole(0, MOST_LENGTH), maxItems=16),
    more=_list(_whole(0, MOST_LENGTH), maxItems=16),
)
_BORDERS: Schema = _list(_BORDER, minItems=1)
_PART: Schema = _object(f"{_RUNNABLE} inputs outputs", **_RUNNABLE_FIELDS, inputs=_BORDERS, outputs=_BORDERS)
_CUT: Schema = _object(
    "exact",
    exact=_FLAG,
    largest_difference=_map(_NUMBER),
    **dict.fromkeys(("ratio", "whole_ms", "split_ms"), _NUMBER),
    pairs=_COUNT,
)
_ERRORS = (
    *("error", "floor", "max_error", "mean_error", "rms_error", "tolerance", "logit_error", "logit_tolerance"),
    *("agreement", "spread", "structure_excess"),
)
VERIFICATION: Schema = _object(
    "artifact",
    artifact=_TEXT,
    task=_TEXT,
    samples=_COUNT,
    excess=_NUMBER,
    constant=_FLAG,
    truth=_TEXT,
    **dict.fromkeys(_ERRORS, _nullable(_NUMBER)),
    against=_TEXT,
    cut_from=_PATH,
)
_STRESS: Schema = _object(artifact=_TEXT, task=_TEXT, max_error=_nullable(_NUMBER), spread=_nullable(_NUMBER))
_WORK: Schema = _object(network=_COUNT, shared=_COUNT, backbone=_COUNT, border=_COUNT)
_SHARING: Schema = _object(
    backbone_copies=_COUNT,
    shares_backbone=_FLAG,
    ideal_ratio=_NUMBER,
    multiply_adds=_WORK,
    parameters=_WORK,
    cut=_map(_CUT),
)
_PROVENANCE: Schema = _object(
    checkpoint=_object(file=_TEXT, sha256=_SHA256, seen=_TEXT),
    notes=_list(_TEXT),
    left_out=_map(_TEXT),
    unchecked=_list(_TEXT),
    verification_images=_TEXT,
    stress=_list(_STRESS),
    targets=_list(
        _object("name library version graphs", name=_TEXT, library=_TEXT, version=_TEXT, graphs=_list(_PATH))
    ),
)
_REFERENCE: Schema = _object("", **_FILE, images=_COUNT)
_COVERAGE: Schema = _object(
    "tensor clipped unused dead_channels heads",
    tensor=_TEXT,
    style=_TEXT,
    clipped=_NUMBER,
    unused=_NUMBER,
    dead_channels=_nullable(_COUNT),
    heads=_list(_TEXT),
)
_CALIBRATION: Schema = _object(
    "",
    **_FILE,
    images=_COUNT,
    held_out=_COUNT,
    method=_TEXT,
    methods=_map(_TEXT),
    budgets=_object(outcome=_TEXT, summary=_TEXT),
    ranges=_TEXT,
    warnings=_list(_TEXT),
    doubts=_list(_TEXT),
    left_out=_object("files first", files=_COUNT, first=_map(_TEXT)),
    kept=_list(_TEXT),
    coverage=_list(_COVERAGE),
)
_CELL: Schema = _object(
    "task variant samples metrics drop drop_low drop_high agreement mean_error max_error",
    task=_TEXT,
    variant=_TEXT,
    samples=_COUNT,
    metrics=_map(_WRITTEN_NUMBER),
    **dict.fromkeys(("drop", "drop_low", "drop_high", "agreement"), _nullable(_WRITTEN_NUMBER)),
    **dict.fromkeys(("mean_error", "max_error"), _WRITTEN_NUMBER),
    unit=_nullable(_TEXT),
)
ACCURACY: Schema = _object(labelled=_FLAG, cells=_list(_CELL))
"""The accuracy of each task in each precision; empty where it was not measured."""

MANIFEST: Schema = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "title": "manifest.json of a bundle",
    **_object(
        "schema_version name signature artifacts",
        schema_version={"type": "integer"},
        name=_TEXT,
        signature=_OBJECT,  # SIGNATURE, once its version is known to be this release's
        artifacts=_list(_ARTIFACT),
        sharing=_SHARING,
        verification=_list(VERIFICATION),
        provenance=_PROVENANCE,
        reference=_REFERENCE,
        calibration=_CALIBRATION,
        accuracy=ACCURACY,
        parts=_list(_PART),
    ),
}
