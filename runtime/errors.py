"""The errors that a user can cause or meet, in one tree.

::

    MtlError                    the user's input: exit code 2
    ├── ImageError              an image or array that a model cannot take
    ├── TaskError               a task that does not exist or does not fit
    ├── BundleError             not a bundle, an unknown schema, a missing file
    │   └── IntegrityError      a file whose SHA-256 is not the manifest's
    ├── BackendError            no library, provider or artifact that can run here
    │   └── NoGpuError          no GPU that CUDA can use
    ├── CheckpointError         a file that holds no usable network
    ├── OptionError             options that contradict one another or a file
    └── WorkError               the work itself failed: exit code 1
        ├── TraceError          a network that cannot be turned into a graph
        ├── VerificationError   a graph that does not match its network
        ├── BuildError          an engine that the library cannot build
        └── RunError            a backend that failed while running
            ├── DeviceMemoryError   the GPU's or the machine's memory is full
            ├── DeviceLostError     the GPU or its context is unusable from then on
            └── DriverFunctionError a driver older than cuda-bindings; a BackendError too

Every message says what was wrong, where, and what to do. Commands print it as one line, without a traceback.
"""

from __future__ import annotations


class MtlError(Exception):
    """Base of all errors of this package."""

    exit_code = 2


class ImageError(MtlError, ValueError):
    """An image or array has a shape, dtype or content that the model cannot take."""


class TaskError(MtlError, ValueError):
    """A task is unknown, malformed, or does not fit the network's output."""


class BundleError(MtlError):
    """A path is not a bundle, or the bundle's manifest cannot be used."""


class IntegrityError(BundleError):
    """A file of a bundle is not the one that the manifest describes."""


class BackendError(MtlError):
    """No installed backend, provider or artifact can do what was asked."""


class NoGpuError(BackendError):
    """This machine has no GPU that CUDA can use; the message is only the reason, such as ``no CUDA driver``."""


class CheckpointError(MtlError):
    """A file is not a checkpoint, or holds no network that can be used."""


class OptionError(MtlError, ValueError):
    """An option has a value that cannot be used, alone or with another option."""


class WorkError(MtlError):
    """The input was fine, but the work itself failed."""

    exit_code = 1


class TraceError(WorkError):
    """A network could not be turned into a graph."""


class VerificationError(WorkError):
    """A graph does not compute what its network computes."""


class RunError(WorkError):
    """A backend failed while it ran a model."""


class BuildError(WorkError):
    """An engine could not be built from its graph."""


class DeviceMemoryError(RunError):
    """The memory of the GPU, or of the machine, is not enough. Nothing is lost: free some, or use smaller batches, and continue."""


class DeviceLostError(RunError):
    """The CUDA context is unusable: an illegal access, a hardware fault, a GPU that has disappeared. Start the process again.

    Models can still be closed. Loading one again in the same process may fail: CUDA asks for a new process.
    """


class DriverFunctionError(BackendError, RunError):
    """The GPU's driver does not have a function that the installed cuda-bindings asks it for."""


class MtlWarning(UserWarning):
    """Something that the user should know, but that does not stop the work; commands show it as one line on standard error."""


class ActivationWarning(MtlWarning):
    """A network's output looks like probabilities, but nothing says that it has applied a sigmoid or softmax."""


class FallbackWarning(MtlWarning):
    """A bundle's engine does not run here, so its ONNX graph does; the message is the reason."""


class UnsignedWarning(MtlWarning):
    """A command wrote a bundle anew and without a signature, where the one that it was made from, or that it replaced, had one."""


class UncheckedWarning(MtlWarning):
    """A bundle comes from a quick export, for development: the message names what was not checked or made."""


class LeftoverWarning(MtlWarning):
    """What a killed command left behind was restored, removed or left alone; the message says which."""
