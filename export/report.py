"""What ``mtl-export`` prints at the end: what was found, what was written, and how closely it matches."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_deploy.export.engines.bundle_engines import describe_layers
from mtl_deploy.export.targets.check import describe_targets
from mtl_deploy.runtime.backends.tensorrt.record import EngineRecord
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest, Part
from mtl_deploy.runtime.console.command import table
from mtl_deploy.runtime.console.nouns import counted, noun


def report(bundle: Bundle, images: Path | None = None, labels: Path | None = None) -> str:
    """Return the text for standard output.

    Args:
        bundle: what was written.
        images: the folder of images that the user named; None: none.
        labels: their labels.
    """
    manifest = bundle.manifest
    files = table(
        ["file", "precision", "tasks", "MB", "parameters", "multiply-adds"],
        [
            [
                artifact.path,
                artifact.precision,
                ", ".join(artifact.tasks),
                f"{artifact.size_bytes / 1e6:.1f}",
                f"{artifact.parameters / 1e6:.2f} M",
                f"{artifact.multiply_adds / 1e9:.3f} G",
            ]
            for artifact in manifest.artifacts
        ],
    )
    truth = manifest.provenance.get("compared_with", "PyTorch")
    verified = table(
        ["file", "task", "images", "error", "allowed", "behind it", "allowed", f"{truth}'s own", "same class"],
        [
            [
                row["artifact"],
                *(str(row.get(key, "n/a")) for key in ("task", "samples")),
                _number(row.get("max_error") if row.get("error") is None else row["error"]),
                *(_number(row.get(key)) for key in ("tolerance", "logit_error", "logit_tolerance", "floor")),
                "n/a" if row.get("agreement") is None else f"{100 * row['agreement']:.1f} %",
            ]
            for row in manifest.verification
            if "cut_from" not in row
        ],
    )
    provenance = manifest.provenance
    seen = f": {provenance['checkpoint']['seen']}" if "seen" in provenance.get("checkpoint", {}) else ""
    notes = "".join(f"note: {note}\n" for note in provenance.get("notes", []))
    against = ""
    if manifest.verification:
        seen_images = f"; graphs on {provenance['verification_images']}" if "verification_images" in provenance else ""
        against = f"Each file against {truth}{seen_images}:\n{verified}\n{_parts(manifest.verification)}\n"
    following = "".join(f"  {line}\n" for line in next_commands(bundle, images, labels))
    return (
        f"{bundle.path}{seen}\n{_sharing(manifest.sharing)}{_border(manifest)}{_half(bundle)}{engines(bundle)}{_targets(bundle)}{notes}\n{files}\n\n{_in_parts(manifest)}{against}"
        f"{_int8(bundle)}"
        f"Next:\n{following}"
    )


def next_commands(bundle: Bundle, images: Path | None, labels: Path | None) -> list[str]:
    """Return the three commands that usually follow, with the user's own paths; what was not named is in capitals."""
    path = shlex.quote(str(bundle.path))
    photos = "PHOTOS/" if images is None else shlex.quote(str(images))
    shown = photos if images is not None and images.is_dir() else "PHOTO.jpg"
    if bundle.manifest.calibration:
        second = f"mtl-infer {path} {shown} --precision int8"
    else:
        truth = "LABELS.csv" if labels is None else shlex.quote(str(labels))
        second = f"mtl-calibrate {path} --calibration-data {photos} --labels {truth}"
    return [f"mtl-infer {path} {shown}", second, f"mtl-bench {path}"]


def _in_parts(manifest: Manifest) -> str:
    """Return what each part of the networks costs, what goes between them, and what the cut costs."""
    if not manifest.parts:
        return ""
    tasks = {task.name for task in manifest.tasks}
    whole = max(manifest.sharing.get("multiply_adds", {}).get("shared", 0), 1)
    rows = []
    for part in (one for one in manifest.parts if one.backend == "onnxruntime"):
        between = [border for border in part.outputs if border.name not in tasks]
        rows.append(
            [
                part.path,
                ", ".join(part.tasks),
                f"{part.size_bytes / 1e6:.1f}",
                f"{part.multiply_adds / 1e9:.3f} G",
                f"{100 * part.multiply_adds / whole:.1f} %",
                f"{sum(border.size_in_bytes(part.batch_min) for border in between) / 1e3:,.0f}" if between else "",
                str(len(between) or ""),
            ]
        )
    titles = ["part", "for the tasks", "MB", "multiply-adds", "of all", "kB per image to others", "tensors"]
    cuts = "".join(_cut(precision, record) for precision, record in manifest.sharing.get("cut", {}).items())
    return (
        f"In parts, of which a call runs those that its tasks need:\n{table(titles, rows)}\n{cuts}"
        f"{_part_engines(manifest.parts)}\n"
    )


def _part_engines(parts: Sequence[Part]) -> str:
    states: dict[tuple[str, str], int] = {}
    for part in parts:
        if part.backend == "tensorrt":
            verified = part.details.get("verified")
            state = "verified on this GPU" if verified is True else f"not run yet: {verified}"
            key = part.path.rpartition("/")[0], state
            states[key] = states.get(key, 0) + 1
    return "".join(f"{folder}: {counted(count, 'engine')}; {state}.\n" for (folder, state), count in states.items())


def _cut(precision: str, record: Mapping[str, Any]) -> str:
    equal = "to the bit" if record["exact"] else "within rounding"
    text = f"split/{precision}: equal to {precision}.onnx {equal}"
    if "ratio" in record:
        text += (
            f"; all parts take {record['ratio']:.2f} times the whole's processor time ({record['split_ms']:.2f} and "
            f"{record['whole_ms']:.2f} ms, median of {record['pairs']} pairs in ONNX Runtime on this CPU)"
        )
    return f"{text}.\n"


def _parts(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return which graphs were verified as parts of others."""
    parts: dict[str, list[str]] = {}
    for row in rows:
        if "cut_from" in row and row["artifact"] not in parts.setdefault(row["cut_from"], []):
            parts[row["cut_from"]].append(row["artifact"])
    return "".join(
        f"{', '.join(paths)}: parts of {whole}, node for node and weight for weight, and as exact on the first images.\n"
        for whole, paths in parts.items()
    )


def _number(value: float | None) -> str:
    return "n/a" if value is None else f"{value:.1e}"


def _int8(bundle: Bundle) -> str:
    """Return what INT8 cost every task."""
    if not bundle.manifest.calibration:
        return ""
    from mtl_deploy.calibration.report import report as int8_report

    return int8_report(bundle) + "\n"


def _targets(bundle: Bundle) -> str:
    """Return which targets of ``--check-target`` read the graphs."""
    graphs = [artifact for artifact in bundle.manifest.artifacts if artifact.backend == "onnxruntime"]
    return describe_targets(bundle.manifest.provenance.get("targets", []), graphs)


def _half(bundle: Bundle) -> str:
    """Return what the FP16 graph keeps in FP32, how much of the work is FP16, and what overflows."""
    left_out = "".join(
        f"{name} is left out: {why}\n" for name, why in bundle.manifest.provenance.get("left_out", {}).items()
    )
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.precision, artifact.backend) == ("shared", "fp16", "onnxruntime"):
            return f"{_half_of(artifact.details)}{left_out}"
    return left_out


def _half_of(details: Mapping[str, Any]) -> str:
    if "summary" not in details:
        return ""
    text = f"FP16: {details['summary']}"
    if "share" in details:
        text += f"; {100 * details['share']:.1f} % of the multiply-adds in FP16"
    if (found := details.get("fit")) and found["before"]:
        before = max(found["before"], key=found["before"].__getitem__)
        kept, joins, rounding = found["keep"], len(found.get("joins", ())), details.get("rounding", ())
        measures = [
            *(
                [f"{' and '.join(staying)} {noun(len(kept) + joins, 'stays', 'stay')} in FP32"]
                if (staying := _staying(len(kept), joins))
                else []
            ),
            *(
                [f"{len(rounding)} weights and biases are rounded up or down, so that their errors cancel"]
                if rounding
                else []
            ),
        ]
        text += (
            f". {'; '.join(measures)}, since the error of task {before!r} would otherwise be "
            f"{found['before'][before]:.2g} times what is allowed"
        )
        if kept:
            text += f" ({', '.join(kept[:3])}{', ...' if len(kept) > 3 else ''})"
        if joins:
            text += ". Joins cost casts and memory traffic, no multiply-adds"
    return f"{text}.\n"


def _staying(layers: int, joins: int) -> list[str]:
    return [
        *([f"{layers} more {noun(layers, 'layer')}"] if layers else []),
        *([f"{counted(joins, 'operation')} that {noun(joins, 'joins', 'join')} branches"] if joins else []),
    ]


def engines(bundle: Bundle) -> str:
    """Return what the engines were built for, in which types their layers compute, and whether they have run."""
    lines = []
    for artifact in bundle.manifest.artifacts:
        if (artifact.role, artifact.backend) != ("shared", "tensorrt"):
            continue
        record = EngineRecord.from_details(artifact.details, artifact.path)
        layers = describe_layers(artifact.details)
        verified = artifact.details.get("verified")
        state = "verified on this GPU" if verified is True else f"not run yet: {verified}"
        taken = f"{_size(artifact.details)}batches {artifact.batch_min} to {artifact.batch_max}, tuned for {record.batch_opt}"
        lines.append(
            f"Engine {artifact.path}: {record.built_for}, {taken}; {f'{layers}; ' if layers else ''}{state}.\n"
        )
        lines += [f"  {text}\n" for text in artifact.details.get("warnings", [])]
    return "".join(lines)


def _size(details: dict[str, Any]) -> str:
    size = details.get("image_size")
    return f"only images of {size[0]}x{size[1]}, " if size else ""


def _sharing(sharing: dict[str, Any]) -> str:
    if not {
        "backbone_copies",
        "shares_backbone",
        "multiply_adds",
        "parameters",
        "ideal_ratio",
    } <= sharing.keys() or not all(
        {"network", "shared", "backbone"} <= sharing[part].keys() for part in ("multiply_adds", "parameters")
    ):  # a bundle that another program made
        return ""
    copies = sharing["backbone_copies"]
    before, after = _cost(sharing, "network"), _cost(sharing, "shared")
    if len(sharing["multiply_adds"].get("heads", ())) == 1:
        return f"One task, so there is nothing to share ({after}).\n"
    if not sharing["shares_backbone"]:
        return (
            "The heads share nothing: these are several networks in one file, and one pass costs as much as running them "
            f"separately ({after}).\n"
        )
    if copies > 1:
        first = f"The network runs its backbone {copies} times ({before}); the graph runs it once ({after})."
    else:
        first = f"The backbone runs once ({after})."
    work = sharing["multiply_adds"]
    share = 100 * work["backbone"] / max(work["shared"], 1)
    return f"{first} {share:.1f} % of the work is shared; separate models do {sharing['ideal_ratio']:.2f} times as much work.\n"


def _border(manifest: Manifest) -> str:
    """Return what graphs do to a camera's frames, and what that costs."""
    of = manifest.signature.preprocessing
    if of.source is None:
        return ""
    work = manifest.sharing.get("multiply_adds", {}).get("border", 0)
    cost = f": {work / 1e9:.3f} G multiply-adds more, which no other count includes" if work else ""
    return f"Graphs take {of.source.description} and bring them to {of.height}x{of.width} themselves{cost}.\n"


def _cost(sharing: dict[str, Any], part: str) -> str:
    work, parameters = sharing["multiply_adds"][part], sharing["parameters"][part]
    return f"{work / 1e9:.2f} G multiply-adds, {parameters / 1e6:.2f} M parameters"
