"""Which operators each TensorRT's ONNX parser reads, and in which form: data for :mod:`mtl_deploy.export.targets.linter`.

The operators are those marked ``Y`` in each release's https://github.com/onnx/onnx-tensorrt/blob/main/docs/operators.md;
docs/targets.md names the source of every rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from mtl_deploy.runtime.onnx_format.graph import ELEMENT_TYPES, OnnxNode, OnnxTensor

Version = tuple[int, int]

_IN_8_5 = """
Abs Acos Acosh Add And ArgMax ArgMin Asin Asinh Atan Atanh AveragePool BatchNormalization Cast Ceil Celu Clip Concat Constant
ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand
EyeLike Flatten Floor GRU Gather GatherElements GatherND Gemm GlobalAveragePool GlobalLpPool GlobalMaxPool Greater
GreaterOrEqual GridSample HardSigmoid HardSwish Identity If ImageScaler InstanceNormalization IsNaN LRN LSTM LeakyRelu Less
LessOrEqual Log LogSoftmax Loop LpNormalization LpPool MatMul Max MaxPool Mean MeanVarianceNormalization Min Mod Mul Neg
NonMaxSuppression NonZero Not OneHot Or PRelu Pad ParametricSoftplus Pow QuantizeLinear RNN RandomNormal RandomNormalLike
RandomUniform RandomUniformLike Range Reciprocal ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin
ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize ReverseSequence RoiAlign Round ScaledTanh Scan Scatter ScatterElements
ScatterND Selu Shape Shrink Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth Split Sqrt Squeeze Sub Sum
Tan Tanh ThresholdedRelu Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor
"""
_LATER: Mapping[Version, str] = {
    (8, 6): "GroupNormalization IsInf LayerNormalization",
    (10, 0): "CastLike Gelu Hardmax Mish",  # since 9.x, which is not a target
    (10, 1): "DeformConv",
    (10, 4): "BlackmanWindow HammingWindow HannWindow",
    (10, 5): "STFT",
    (10, 14): "Attention",
    (10, 15): "RMSNormalization RotaryEmbedding TensorScatter",
    (11, 0): "Swish",
    (11, 2): "DFT",
}
#: The first TensorRT that reads an operator. What is missing here, none reads.
READ_SINCE: Mapping[str, Version] = {
    **dict.fromkeys(_IN_8_5.split(), (8, 5)),
    **{name: version for version, names in _LATER.items() for name in names.split()},
}
#: What TensorRT-RTX 1.7 does not read although the TensorRT of its time does.
NOT_IN_RTX = frozenset({"DFT", "DeformConv"})
#: What its parser reads, and its builder has no kernel for.
NOT_BUILT_IN_RTX = frozenset({"NonMaxSuppression"})

#: Element types, with the first version that reads them.
TYPES_SINCE: Mapping[str, Version] = {
    **dict.fromkeys(["float32", "float16", "float64", "int32", "int64", "int8", "uint8", "bool"], (8, 5)),
    **dict.fromkeys(["bfloat16", "float8_e4m3fn"], (9, 0)),
    "int4": (10, 0),
    "float4_e2m1fn": (10, 8),
}
#: What a Q/DQ pair may quantize to.
QUANTIZED = frozenset({"int8", "float8_e4m3fn", "int4", "float4_e2m1fn"})

#: The operators whose definition an opset changed or added, from https://onnx.ai/onnx/operators/.
CHANGED_IN: Mapping[int, frozenset[str]] = {
    opset: frozenset(names.split())
    for opset, names in {
        18: "BitwiseAnd BitwiseNot BitwiseOr BitwiseXor CenterCropPad Col2Im GroupNormalization LpPool Mish OptionalGetElement "
        "OptionalHasElement Pad ReduceL1 ReduceL2 ReduceLogSum ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd "
        "ReduceSumSquare Resize ScatterElements ScatterND Split",
        19: "AveragePool Cast CastLike Constant DeformConv DequantizeLinear Equal Identity If Loop Pad QuantizeLinear Reshape "
        "Resize Scan Shape Size",
        20: "AffineGrid ConstantOfShape DFT Gelu GridSample ImageDecoder IsInf IsNaN ReduceMax ReduceMin RegexFullMatch "
        "StringConcat StringSplit",
        21: "Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten GroupNormalization Identity If Loop Pad "
        "QLinearMatMul QuantizeLinear Reshape Scan Shape Size Squeeze Transpose Unsqueeze",
        22: "Acos Acosh Asin Asinh Atan Atanh AveragePool Bernoulli Conv ConvTranspose Cos Cosh DeformConv Det Dropout Elu "
        "EyeLike GRU GlobalAveragePool GlobalLpPool GlobalMaxPool GridSample HardSigmoid HardSwish InstanceNormalization LSTM "
        "LpNormalization LpPool MaxPool MaxRoiPool MaxUnpool Mish Multinomial NegativeLogLikelihoodLoss RNN RandomNormal "
        "RandomNormalLike RandomUniform RandomUniformLike RoiAlign Round Selu Sin Sinh Softplus Softsign Tan ThresholdedRelu",
        23: "Attention Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
        "RMSNormalization Reshape RotaryEmbedding Scan Shape Size Squeeze Transpose Unsqueeze",
        24: "Attention Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
        "Reshape Scan Shape Size SplitToSequence Squeeze Swish TensorScatter TopK Transpose Unsqueeze",
        25: "Attention Cast CastLike Constant ConstantOfShape DequantizeLinear Flatten Identity If Loop Pad QuantizeLinear "
        "Reshape Scan Shape Size Squeeze Transpose Unsqueeze",
    }.items()
}


@dataclass(frozen=True)
class Use:
    """A node, with the constants that it can read."""

    node: OnnxNode
    opset: int
    constants: Mapping[str, OnnxTensor | None]  # None: a constant that is not a plain tensor
    ranks: Mapping[str, int]

    def attribute(self, name: str, default: Any) -> Any:
        """Return an attribute's value, or ONNX's default if it is not given."""
        return self.node.attributes.get(name, default)

    def has(self, position: int) -> bool:
        """Return whether the input is given."""
        return position < len(self.node.inputs) and bool(self.node.inputs[position])

    def computed(self, *positions: int) -> bool:
        """Return whether one of the inputs is given and is not a constant."""
        return any(self.has(position) and self.node.inputs[position] not in self.constants for position in positions)

    def input_type(self, position: int) -> str | None:
        """Return the element type of an input; None: the file does not say, or there is no such input."""
        return self.node.input_types[position] if self.has(position) else None

    def rank(self, position: int) -> int | None:
        """Return how many dimensions an input has; None: the file does not say."""
        return self.ranks.get(self.node.inputs[position]) if self.has(position) else None

    def values(self, position: int) -> np.ndarray[Any, Any] | None:
        """Return a constant input's values; None: it is computed, or its values are in another file."""
        tensor = self.constants.get(self.node.inputs[position]) if self.has(position) else None
        return None if tensor is None else tensor.values()


@dataclass(frozen=True)
class Restriction:
    """A form of an operator that parsers do not read."""

    operators: tuple[str, ...]
    applies: Callable[[Use], bool]
    problem: str
    remedy: str
    before: Version | None = None  # the first version that reads this form as well; None: there is none


_Q_DQ = ("QuantizeLinear", "DequantizeLinear")
_REDUCTIONS = tuple(name for name in READ_SINCE if name.startswith("Reduce"))
_MODES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
_INT8 = "build it from int8.onnx, whose zero points are int8 zeros; int8-cpu.onnx is for ONNX Runtime on a CPU"


def quantized_type(use: Use) -> str | None:
    """Return what a Q/DQ node quantizes to; None: the file does not say."""
    if zero_point := use.input_type(2):
        return zero_point
    if use.node.op_type == "DequantizeLinear":
        return use.input_type(0)
    number = use.attribute("output_dtype", 0)
    return ELEMENT_TYPES.get(number) if number else (None if use.has(2) else "uint8")  # ONNX's default


def _shifted(use: Use) -> bool:
    if quantized_type(use) not in ("int8", "uint8"):
        return False
    values = use.values(2)
    return values is not None and bool(np.any(values))


def _repeats(use: Use) -> bool:
    equation = str(use.attribute("equation", "")).replace(" ", "")
    terms = equation.split("->")[0].split(",")
    return "..." in equation or any(len(set(term)) < len(term) for term in terms)


def _integer_base(use: Use) -> bool:
    return (use.input_type(0) or "") in ("int32", "int64")


RESTRICTIONS: tuple[Restriction, ...] = (
    Restriction(
        _Q_DQ,
        lambda use: (quantized_type(use) or "int8") not in QUANTIZED,
        "TensorRT quantizes only to signed types, this is {type}",
        _INT8,
    ),
    Restriction(_Q_DQ, _shifted, "the zero point is not 0, and TensorRT reads only symmetric quantization", _INT8),
    Restriction(
        _Q_DQ, lambda use: not use.has(2), "there is no zero point", "give it an int8 zero point of 0", before=(9, 0)
    ),
    Restriction(
        _Q_DQ,
        lambda use: (use.input_type(1) or "float32") != "float32",
        "the scale is {scale}, and the parser reads it as float32",
        "keep the scales in float32 (opset 17 allows nothing else)",
        before=(9, 0),
    ),
    Restriction(
        ("MaxPool", "LayerNormalization", "BatchNormalization"),
        lambda use: sum(map(bool, use.node.outputs)) > 1,
        "only the first output is read",
        "leave the other outputs out",
    ),
    Restriction(
        ("BatchNormalization",),
        lambda use: bool(use.attribute("training_mode", 0)),
        "training mode is not read",
        "export the network in eval mode",
    ),
    Restriction(
        ("Dropout",),
        lambda use: use.computed(2) or bool(np.any(use.values(2))),
        "training mode is not read",
        "export the network in eval mode",
    ),
    Restriction(
        ("AveragePool", "MaxPool", "LpPool"),
        lambda use: any(step != 1 for step in use.attribute("dilations", ())),
        "dilations other than 1 are not read",
        "pool without dilation",
    ),
    Restriction(
        ("LpPool", "LpNormalization"),
        lambda use: use.attribute("p", 2) not in (1, 2),
        "only the norms 1 and 2 are read",
        "use p=1 or p=2",
    ),
    Restriction(
        ("Resize",),
        lambda use: bool(use.attribute("antialias", 0)),
        "antialiasing is not read",
        "resize with antialias=False, or before the network",
    ),
    Restriction(
        ("Resize",),
        lambda use: use.attribute("keep_aspect_ratio_policy", "stretch") != "stretch",
        "only the aspect ratio policy stretch is read",
        "give both sizes",
    ),
    Restriction(
        ("Resize",),
        lambda use: use.attribute("coordinate_transformation_mode", "half_pixel") not in _MODES,
        "the coordinate transformation is not read",
        f"use one of {', '.join(_MODES)}",
    ),
    Restriction(
        ("Resize",),
        lambda use: use.computed(2) and "axes" in use.node.attributes,
        "computed scales are not read together with axes",
        "give a constant scale, or sizes",
    ),
    Restriction(
        ("GridSample",),
        lambda use: use.rank(0) not in (4, None),
        "only inputs of 4 dimensions are read",
        "sample each slice, or use TensorRT 11.2 or later",
        before=(11, 2),
    ),
    Restriction(
        ("GroupNormalization",),
        lambda use: use.opset >= 21,
        "its form of opset 21 is not read",
        "export with --opset 20 or lower",
        before=(10, 9),
    ),
    Restriction(
        ("ScatterND",),
        lambda use: use.attribute("reduction", "none") != "none",
        "a reduction is not read",
        "use ScatterElements, or add the result outside",
    ),
    Restriction(
        ("LSTM",),
        lambda use: bool(use.attribute("layout", 0)) or bool(use.attribute("input_forget", 0)),
        "layout and input_forget must be 0",
        "build the LSTM with batch_first=False",
    ),
    Restriction(
        ("Constant",),
        lambda use: not {"sparse_value", "value_string", "value_strings"}.isdisjoint(use.node.attributes),
        "sparse tensors and strings are not read",
        "leave them out of the network",
    ),
    Restriction(
        ("Einsum",),
        _repeats,
        "ellipses and diagonals are not read",
        "write the equation with one letter per dimension, or as matrix products",
        before=(10, 12),
    ),
    Restriction(("Pow",), _integer_base, "a base of integers is not read", "cast it to float first", before=(10, 12)),
    Restriction(
        _REDUCTIONS, lambda use: use.computed(1), "the axes are computed", "reduce over axes that are constants"
    ),
    Restriction(("CumSum",), lambda use: use.computed(1), "the axis is computed", "make it a constant", before=(10, 8)),
    Restriction(("Squeeze", "Unsqueeze"), lambda use: use.computed(1), "the axes are computed", "make them constants"),
    Restriction(("Pad",), lambda use: use.computed(3), "the axes are computed", "make them constants", before=(10, 4)),
    Restriction(
        ("Slice",), lambda use: use.computed(3), "the axes are computed", "make them constants", before=(10, 3)
    ),
    Restriction(("TopK",), lambda use: use.computed(1), "K is computed", "make it a constant", before=(8, 6)),
    Restriction(
        ("InstanceNormalization",),
        lambda use: use.computed(1, 2),
        "scale and bias are computed",
        "make them constants",
        before=(8, 6),
    ),
)
