"""What an application embeds: load a bundle, run it, decode its predictions.

    from mtl_deploy.runtime import load

    model = load("model.mtl")
    print(model.predict("face.jpg")["age"])

Needs numpy and one backend (ONNX Runtime, OpenVINO, TensorRT or TensorRT-RTX), and Pillow if paths or PIL images are passed.
Importing it loads no backend.
"""

from mtl_deploy.runtime.bundle.preprocessing import Preprocessing
from mtl_deploy.runtime.bundle.signature import Signature
from mtl_deploy.runtime.bundle.tasks import Task
from mtl_deploy.runtime.cuda.arrays import DeviceArray
from mtl_deploy.runtime.predictions.decoding import Prediction

from .errors import (
    BackendError,
    BundleError,
    DeviceLostError,
    DeviceMemoryError,
    DriverFunctionError,
    FallbackWarning,
    ImageError,
    IntegrityError,
    MtlError,
    NoGpuError,
    OptionError,
    RunError,
    TaskError,
    WorkError,
)
from .loading import load
from .model import Model

__all__ = [
    "BackendError",
    "BundleError",
    "DeviceArray",
    "DeviceLostError",
    "DeviceMemoryError",
    "DriverFunctionError",
    "FallbackWarning",
    "ImageError",
    "IntegrityError",
    "Model",
    "MtlError",
    "NoGpuError",
    "OptionError",
    "Prediction",
    "Preprocessing",
    "RunError",
    "Signature",
    "Task",
    "TaskError",
    "WorkError",
    "load",
]
