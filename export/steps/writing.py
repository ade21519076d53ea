"""The last steps: write the graphs, quantize, build engines, and write and sign the manifest. Nothing stays if one fails."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mtl_deploy.calibration.split.stage import Cut
from mtl_deploy.export.engines.bundle_engines import Builder
from mtl_deploy.export.engines.stage import add_engines
from mtl_deploy.export.graph.variants import GraphVariant
from mtl_deploy.export.options.export import Options
from mtl_deploy.export.targets.check import check_targets, read_by
from mtl_deploy.runtime.bundle.manifest import Bundle, Manifest
from mtl_deploy.runtime.bundle.writing import Claim, EarlyFiles, write_file, write_manifest
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import VerificationError, WorkError

from .int8 import Quantizer
from .precisions import leave_out


@dataclass(frozen=True)
class Writer:
    """Writes the bundle; called with the claim on its folder.

    Attributes:
        manifest: with the graphs.
        graphs: as they were verified, in the manifest's order.
        early: has written their files.
        cuts: the graphs in parts, if that was asked for.
        reference: the file's bytes.
        quantize: adds INT8 graphs; None if they were not asked for.
        builder: builds engines; or the reason why there is none, empty if no engines were asked for.
        signer: signs the folder; None if the bundle is not signed.
        options: what was asked for.
        progress: shows what is being done.
    """

    manifest: Manifest
    graphs: Sequence[GraphVariant]
    early: EarlyFiles
    cuts: Sequence[Cut]
    reference: bytes
    quantize: Quantizer | None
    builder: Builder | str
    signer: Callable[[Path], None] | None
    options: Options
    progress: Progress

    def __call__(self, claim: Claim) -> Bundle:
        """Write, quantize, build, sign.

        Raises:
            MtlError: a step failed; nothing is left behind.
        """
        with claim.writing() as folder:
            self._write_graphs(folder)
            manifest = self._told(self._quantized(folder, self.manifest))
            manifest = self._built(folder, manifest)
            write_manifest(folder, manifest)
            if self.signer is not None:
                self.signer(folder)
        return Bundle(self.options.target, manifest)

    def _write_graphs(self, folder: Path) -> None:
        with self.progress.step(f"Writing {self.options.target}"):
            for graph, artifact in zip(self.graphs, self.manifest.artifacts, strict=True):
                if graph.path != artifact.path or self.early.sha256(graph.path) != artifact.sha256:
                    raise WorkError(f"{graph.path} is not the file that was verified; please report this")
                self.early.place(graph.path, folder)
            for cut in self.cuts:
                cut.write(folder)
            write_file(folder, str(self.manifest.reference["path"]), self.reference)

    def _quantized(self, folder: Path, manifest: Manifest) -> Manifest:
        """Add the INT8 graphs, or the reason why they are missing if they were not asked for by name."""
        if self.quantize is None:
            return manifest
        try:
            manifest = self.quantize(folder, manifest)
        except VerificationError as error:
            left_out = manifest.provenance["left_out"] | leave_out("int8", error, self.options)
            return replace(manifest, provenance=manifest.provenance | {"left_out": left_out})
        made = [artifact for artifact in manifest.artifacts if artifact.precision == "int8"]
        check_targets(made, Bundle(folder, manifest).read, self.options.targets)
        return manifest

    def _told(self, manifest: Manifest) -> Manifest:
        """Record which targets read the graphs."""
        graphs = [artifact for artifact in manifest.artifacts if artifact.backend == "onnxruntime"]
        checked = read_by(self.options.targets, graphs)
        return replace(manifest, provenance=manifest.provenance | ({"targets": checked} if checked else {}))

    def _built(self, folder: Path, manifest: Manifest) -> Manifest:
        """Add the engines, or a note why there are none."""
        if not isinstance(self.builder, str):
            return add_engines(folder, manifest, self.builder, self.options.tolerances, self.progress)
        if not self.builder:
            return manifest
        notes = [*manifest.provenance["notes"], self.builder]
        return replace(manifest, provenance=manifest.provenance | {"notes": notes})
