"""How fast the INT8 graphs run here, beside the FP32 graph: measured once they are written, and kept in the bundle."""

from __future__ import annotations

import warnings
from pathlib import Path

from mtl_deploy.runtime.bundle.manifest import MEASURED_FILE, Bundle, Manifest
from mtl_deploy.runtime.bundle.writing import write_file
from mtl_deploy.runtime.console.command import Progress
from mtl_deploy.runtime.errors import MtlError, MtlWarning
from mtl_deploy.runtime.files import disk
from mtl_deploy.runtime.measured.measure import measure
from mtl_deploy.runtime.measured.record import packed, read, with_run

from .options import Int8Options


def add_measurement(folder: Path, manifest: Manifest, options: Int8Options, progress: Progress) -> None:
    """Measure a bundle's graphs on this machine, and write the file of measurements; of graphs that changed none are kept.

    Where that fails, the bundle is good without: a warning says why.

    Args:
        folder: of the bundle that is being written, with its graphs.
        manifest: that will be written.
        options: ``measure`` says whether to, and ``threads`` how; other threads are another measurement.
        progress: shows the step.
    """
    run = None
    if options.measure:
        with progress.step("Measuring the graphs on this machine") as say:
            try:
                run = measure(
                    Bundle(folder, manifest),
                    threads=options.threads,
                    say=lambda text: progress.update(f"Measuring the graphs on this machine: {text}"),
                )
            except MtlError as error:
                say("failed")
                warnings.warn(f"the graphs were not measured on this machine: {error}", MtlWarning, stacklevel=2)
            else:
                say(f"{len(run.candidates)} candidates")
    former = read(folder)
    runs = with_run(former.runs, manifest, run)
    if runs:
        write_file(folder, MEASURED_FILE, packed(runs))
    elif former.exists:
        disk.remove(folder / MEASURED_FILE)
