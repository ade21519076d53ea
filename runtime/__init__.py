"""What an application embeds: load a bundle, run it, decode its predictions.

    from mtl_deploy.runtime import load

    model = load("model.mtl")
    print(model.predict("face.jpg")["age"])

Needs numpy and one backend (ONNX Runtime); Pillow where paths or PIL images are passed. Importing it loads no backend.
"""

from .decoding import Prediction
from .errors import (
    BackendError,
    BundleError,
    ImageError,
    IntegrityError,
    MtlError,
    OptionError,
    RunError,
    TaskError,
    WorkError,
)
from .model import Model, load
from .preprocessing import Preprocessing
from .signature import Signature
from .tasks import Task

__all__ = [
    "BackendError",
    "BundleError",
    "ImageError",
    "IntegrityError",
    "Model",
    "MtlError",
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
