"""NNCF's own quantization of a graph, for goals.py; run with a Python that has NNCF and OpenVINO.

python examples/goal_nncf.py model.mtl/fp32.onnx photographs.npy int8.xml
"""

from __future__ import annotations

import sys
from pathlib import Path


def main() -> None:
    import nncf
    import numpy as np
    import openvino

    graph, photographs, target = map(Path, sys.argv[1:])
    model = openvino.Core().read_model(graph)
    images = np.load(photographs)
    name = model.inputs[0].any_name
    model.reshape([1, *images.shape[1:]])
    dataset = nncf.Dataset([images[i : i + 1] for i in range(len(images))], lambda image: {name: image})
    quantized = nncf.quantize(model, dataset, subset_size=len(images))
    openvino.save_model(quantized, target, compress_to_fp16=False)


if __name__ == "__main__":
    main()
