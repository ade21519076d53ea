"""Building engines, in the calls of each release; options that a release lacks are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mtl_deploy.runtime.errors import OptionError

from .release import Release


class BuildsEngines(Release):
    """What the exporter asks of a library, whichever its release."""

    def network_flags(self) -> int:
        """Return the flags to create a network with."""
        flags = self.module.NetworkDefinitionCreationFlag
        name = "STRONGLY_TYPED" if self.strongly_typed else "EXPLICIT_BATCH"
        return 1 << int(getattr(flags, name)) if hasattr(flags, name) else 0

    def obey_types(self, network: Any, config: Any, types: Mapping[str, str]) -> None:
        """Make a library that is not strongly typed compute each layer in the graph's type.

        Args:
            network: parsed.
            config: the builder's.
            types: by ONNX node, as TensorRT names its layers after nodes: ``fp32``, ``fp16`` or ``int8`` (a Q/DQ node).
        """
        if self.strongly_typed:
            return
        trt = self.module
        found = set(types.values())
        if "fp16" in found:
            config.set_flag(trt.BuilderFlag.FP16)
        if "int8" in found:
            config.set_flag(trt.BuilderFlag.INT8)
        if not found & {"fp16", "int8"}:
            return
        config.set_flag(trt.BuilderFlag.OBEY_PRECISION_CONSTRAINTS)
        wanted = {"fp32": trt.float32} if "int8" in found else {"fp32": trt.float32, "fp16": trt.float16}
        fixed = (trt.LayerType.CONSTANT, trt.LayerType.SHAPE, trt.LayerType.QUANTIZE, trt.LayerType.DEQUANTIZE)
        for index in range(network.num_layers):
            layer = network.get_layer(index)
            dtype = wanted.get(types.get(layer.name, ""))
            if dtype is None or layer.type in (*fixed, trt.LayerType.CAST):
                continue
            layer.precision = dtype
            for output in range(layer.num_outputs):
                layer.set_output_type(output, dtype)

    def prepare(self, config: Any) -> None:
        """Set what this project's runtime needs of an engine, whatever the user chose."""
        trt = self.module
        config.profiling_verbosity = trt.ProfilingVerbosity.DETAILED  # the inspector then tells each layer's type
        if hasattr(
            trt.PreviewFeature, "PROFILE_SHARING_0806"
        ):  # one profile serves several contexts; always so from 10 on
            config.set_preview_feature(trt.PreviewFeature.PROFILE_SHARING_0806, True)
        if hasattr(trt.BuilderFlag, "REQUIRE_USER_ALLOCATION"):  # TensorRT-RTX: what stream capture needs
            config.set_flag(trt.BuilderFlag.REQUIRE_USER_ALLOCATION)

    def set_workspace(self, config: Any, size: int) -> None:
        """Limit the memory that a layer may use beside its tensors, in bytes."""
        config.set_memory_pool_limit(self.module.MemoryPoolType.WORKSPACE, size)

    def set_tf32(self, config: Any, allowed: bool) -> None:
        """Allow or forbid TF32 in FP32 layers: 10 bits of mantissa instead of 23."""
        (config.set_flag if allowed else config.clear_flag)(self.module.BuilderFlag.TF32)

    def set_optimization_level(self, config: Any, level: int) -> None:
        """Set how long the builder searches, from 0 to 5."""
        config.builder_optimization_level = level

    def set_version_compatible(self, config: Any) -> None:
        """Let later versions of the library run the engine."""
        if self.is_rtx:
            raise OptionError(
                "TensorRT-RTX has no version-compatible engines: each release reads only its own; leave --version-compatible out"
            )
        config.set_flag(self.module.BuilderFlag.VERSION_COMPATIBLE)

    def set_hardware_compatibility(self, config: Any, level: str) -> None:
        """Let other GPUs run the engine: ``ampere_plus`` or ``same_compute_capability``."""
        if self.is_rtx:
            raise OptionError("TensorRT-RTX names its GPUs with --gpu sm86,sm89,...; leave --hardware-compatible out")
        levels = self.module.HardwareCompatibilityLevel
        if not hasattr(levels, level.upper()):
            raise OptionError(f"{self.title} has no hardware compatibility {level!r}; it has {_names(levels)}")
        config.hardware_compatibility_level = getattr(levels, level.upper())

    def set_gpus(self, config: Any, gpus: Sequence[str]) -> None:
        """Set the compute capabilities (``sm86``) that an engine is built for ahead of time."""
        if not self.is_rtx:
            raise OptionError(
                f"--gpu is TensorRT-RTX's: {self.title} builds for this machine's GPU; build on the device, or pass --engine "
                "tensorrt-rtx"
            )
        known = self.module.ComputeCapability
        for name in gpus:
            if not hasattr(known, name.upper()) or not name.lower().startswith("sm"):
                raise OptionError(f"--gpu {name}: {self.title} builds for {_names(known, 'SM')}")
        config.num_compute_capabilities = len(gpus)
        for index, name in enumerate(gpus):
            config.set_compute_capability(getattr(known, name.upper()), index)

    def set_tactic_sources(self, config: Any, names: Sequence[str]) -> None:
        """Let the builder use only the named sources of kernels."""
        known = self.module.TacticSource
        for name in names:
            if not hasattr(known, name.upper()):
                raise OptionError(f"--tactic-sources {name}: {self.title} has {_names(known)}")
        config.set_tactic_sources(sum(1 << int(getattr(known, name.upper())) for name in names))

    def load_timing_cache(self, config: Any, file: Path) -> Any:
        """Use measurements of earlier builds; the file need not exist yet.

        Raises:
            OptionError: the library has none, or refuses the file.
        """
        if self.is_rtx:
            raise OptionError(
                "TensorRT-RTX does not time tactics when it builds, so it has no timing cache; leave --timing-cache out"
            )
        try:
            content = file.read_bytes() if file.exists() else b""
        except OSError as error:
            raise OptionError(f"--timing-cache {file}: {error.strerror or error}") from error
        cache = config.create_timing_cache(content)
        if cache is None or not config.set_timing_cache(cache, ignore_mismatch=False):
            raise OptionError(
                f"--timing-cache {file}: {self.title} refuses it (another version's or GPU's, or damaged); name another file"
            )
        return cache

    @property
    def reports_progress(self) -> bool:
        """Whether a build can be followed and cancelled."""
        return hasattr(self.module, "IProgressMonitor")


def _names(enum: Any, start: str = "") -> str:
    members = getattr(enum, "__members__", {})
    return ", ".join(name.lower() for name in members if name.startswith(start))
