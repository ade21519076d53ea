"""Load model A, load model B, close A, and have TensorRT say something about B, with a real module. Runs in a process of its own.

python logs.py MODULE '["library", ...]'
"""

from __future__ import annotations

import gc
import json
import sys

from names import load

from mtl_deploy.runtime.backends.tensorrt.library import Library
from mtl_deploy.runtime.backends.tensorrt.log import Messages
from mtl_deploy.runtime.backends.tensorrt.start import start_runtime


def main() -> None:
    trt = load(*sys.argv[1:3])
    library = Library("tensorrt-rtx", trt.__version__, trt)
    first, second = Messages(), Messages()
    a, b = start_runtime(library, first), start_runtime(library, second)
    del a, first
    gc.collect()
    second.clear()
    assert b.deserialize_cuda_engine(b"no plan" * 50) is None
    said = second.errors
    second.clear()
    assert trt.get_plugin_registry().load_library("/nowhere.so") is None  # speaks through nvinfer1::getLogger()
    print(json.dumps({"of the plan": said, "of the registry": second.errors}))


main()
