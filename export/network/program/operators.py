"""Which operators a program may call: those that compute on the tensors they are given, and do nothing else.

A name is looked up here, not in PyTorch: ``aten.from_file`` maps a file that the program names, ``aten.empty`` and
``aten._reshape_alias`` expose foreign memory, ``aten.rand`` draws from the random number generator, and what a later PyTorch
adds is not known yet. Each overload of a listed operator must also have a harmless signature (:func:`is_pure`): it writes at
most to its own first tensor, and takes no generator, storage or stream. Arguments that would choose a device or draw random
numbers are checked where they are passed (:func:`refused_argument`), and sizes that kernels trust are checked when the network runs
(:mod:`mtl_deploy.export.network.program.bounds`).
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import torch

_TARGET = re.compile(r"torch\.ops\.(aten|prims|torchvision)\.([A-Za-z_]\w*)\.([A-Za-z]\w*)", re.ASCII)

_ELEMENTWISE = """
    abs absolute acos acosh arccos arccosh add addcdiv addcmul arcsin arcsinh arctan arctan2 arctanh asin asinh atan
    atan2 atanh bitwise_and bitwise_left_shift bitwise_not bitwise_or bitwise_right_shift bitwise_xor ceil celu clamp
    clamp_max clamp_min clip copysign cos cosh deg2rad digamma div divide elu eq erf erfc erfinv exp exp2 expm1 fix
    float_power floor floor_divide fmax fmin fmod frac ge gelu glu greater greater_equal gt hardshrink hardsigmoid
    hardswish hardtanh hypot isfinite isinf isnan isneginf isposinf le leaky_relu lerp less less_equal lgamma log log10
    log1p log2 log_sigmoid logaddexp logaddexp2 logical_and logical_not logical_or logical_xor logit lt maximum minimum
    mish mul multiply nan_to_num ne neg negative not_equal positive pow prelu rad2deg reciprocal relu relu6 remainder
    round rsqrt rsub selu sigmoid sign signbit silu sin sinc sinh softplus softshrink sqrt square sub subtract tan tanh
    threshold true_divide trunc where xlogy __and__ __or__ __xor__
"""
_IN_PLACE = """
    abs_ add_ addcdiv_ addcmul_ ceil_ celu_ clamp_ clamp_max_ clamp_min_ clip_ copy_ cos_ div_ divide_ dropout_ elu_ eq_
    erf_ exp_ expm1_ fill_ floor_ floor_divide_ fmod_ ge_ gelu_ gt_ hardsigmoid_ hardswish_ hardtanh_ index_add_
    index_copy_ index_fill_ index_put_ le_ leaky_relu_ lerp_ log_ logical_and_ logical_not_ logical_or_ lt_ masked_fill_
    masked_scatter_ mish_ mul_ multiply_ nan_to_num_ ne_ neg_ pow_ reciprocal_ relu_ relu6_ remainder_ round_ rsqrt_
    scatter_ scatter_add_ scatter_reduce_ selu_ sigmoid_ sign_ silu_ sin_ sqrt_ square_ squeeze_ sub_ subtract_ t_ tanh_
    threshold_ transpose_ tril_ triu_ true_divide_ trunc_ unsqueeze_ zero_
"""
_REDUCTIONS = """
    all amax amin aminmax any argmax argmin argsort count_nonzero cummax cummin cumprod cumsum frobenius_norm kthvalue
    linalg_norm linalg_vector_norm log_softmax logsumexp max mean median min nanmean nansum norm prod softmax sort std
    std_mean sum topk trace var var_mean _log_softmax _softmax
"""
_PRODUCTS = """
    addbmm addmm addmv baddbmm bilinear bmm cdist cosine_similarity cross dot einsum inner kron linalg_cross linear
    matmul mm mv outer pairwise_distance scaled_dot_product_attention tensordot
"""
_LAYERS = """
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_avg_pool3d adaptive_max_pool1d adaptive_max_pool2d
    adaptive_max_pool3d alpha_dropout avg_pool1d avg_pool2d avg_pool3d batch_norm channel_shuffle col2im constant_pad_nd
    conv1d conv2d conv3d conv_transpose1d conv_transpose2d conv_transpose3d convolution dropout embedding
    feature_alpha_dropout feature_dropout grid_sampler grid_sampler_2d group_norm im2col instance_norm layer_norm
    max_pool1d max_pool2d max_pool2d_with_indices max_pool3d max_pool3d_with_indices native_batch_norm native_dropout
    native_group_norm native_layer_norm pad pixel_shuffle pixel_unshuffle reflection_pad1d reflection_pad2d
    reflection_pad3d replication_pad1d replication_pad2d replication_pad3d rms_norm upsample_bicubic2d
    upsample_bilinear2d upsample_linear1d upsample_nearest1d upsample_nearest2d upsample_nearest3d upsample_trilinear3d
    _adaptive_avg_pool2d _adaptive_avg_pool3d _convolution _native_batch_norm_legit _native_batch_norm_legit_functional
    _native_batch_norm_legit_no_training _upsample_bicubic2d_aa _upsample_bilinear2d_aa _upsample_nearest_exact1d
    _upsample_nearest_exact2d _upsample_nearest_exact3d
"""
_VIEWS = """
    adjoint alias as_strided atleast_1d atleast_2d atleast_3d broadcast_tensors broadcast_to cat chunk clone
    column_stack concat concatenate contiguous copy detach detach_ diag diag_embed diagonal diagonal_scatter dstack
    expand expand_as fill flatten flip fliplr flipud gather hsplit hstack index index_add index_copy index_fill
    index_put index_select lift_fresh lift_fresh_copy masked_fill masked_scatter masked_select meshgrid moveaxis movedim
    narrow nonzero one_hot permute ravel repeat repeat_interleave reshape reshape_as roll rot90 row_stack scatter
    scatter_add scatter_reduce select select_scatter slice slice_scatter split split_with_sizes squeeze stack swapaxes
    swapdims t take_along_dim tensor_split tile to transpose tril triu type_as unbind unflatten unfold unsqueeze view
    view_as vsplit vstack _to_copy _unsafe_view
"""
_FRESH = """
    arange bucketize eye full full_like isin linspace logspace new_full new_ones new_zeros ones ones_like scalar_tensor
    searchsorted tril_indices triu_indices zeros zeros_like
"""
_SIZES = """
    sym_constrain_range sym_constrain_range_for_size sym_is_contiguous sym_numel sym_size sym_storage_offset sym_stride
    _assert_scalar _assert_tensor_metadata
"""
_PRIMS = """
    abs add amax amin bitwise_and bitwise_not bitwise_or bitwise_xor broadcast_in_dim cat ceil clone collapse_view
    convert_element_type cos cosh div eq erf exp expm1 floor full full_like ge gt iota isfinite le log log1p log2 lt
    maximum minimum mul ne neg pow prod reciprocal remainder reshape rev round rsqrt sign sin sinh split_dim sqrt
    squeeze sub sum tan tanh transpose trunc var view_of where
"""
_MAKERS = frozenset(_FRESH.split()) | {"iota", "_assert_scalar", "sym_constrain_range", "sym_constrain_range_for_size"}
_LISTED = {
    "aten": frozenset(
        " ".join((_ELEMENTWISE, _IN_PLACE, _REDUCTIONS, _PRODUCTS, _LAYERS, _VIEWS, _FRESH, _SIZES)).split()
    ),
    "prims": frozenset(_PRIMS.split()),
    "torchvision": frozenset({"deform_conv2d", "nms"}),  # roi_align reads where its boxes say, whatever the batch
}
#: Functions of sizes (``torch/_export/serde/serialize.py``, ``_SYM_OPS``), as ``torch.export.save`` writes them.
_SIZE_FUNCTIONS = """
    _operator.add _operator.sub _operator.mul _operator.floordiv _operator.truediv _operator.mod _operator.pow _operator.neg
    _operator.pos _operator.eq _operator.ne _operator.lt _operator.le _operator.gt _operator.ge _operator.and_ _operator.or_
    math.ceil math.floor math.trunc
    torch.sym_float torch.sym_int torch.sym_ite torch.sym_max torch.sym_min torch.sym_not
"""
SIZE_FUNCTIONS = frozenset(_SIZE_FUNCTIONS.split())
#: Operators that draw random numbers unless the named argument has the value that turns it off.
SEEDED = {
    "alpha_dropout": ("train", False),
    "dropout": ("train", False),
    "dropout_": ("train", False),
    "feature_alpha_dropout": ("train", False),
    "feature_dropout": ("train", False),
    "native_dropout": ("train", False),
    "scaled_dot_product_attention": ("dropout_p", 0.0),
}
_TRAINING = ("train", "training")
_HARMLESS_TYPES = re.compile(
    r"(Optional\[)?((List\[)?(Optional\[)?(Tensor|number|int|float|bool)|str|Device|complex)\]*"  # sizes print as int
)
_MOST_DEGREE, _MOST_EXPONENT = 64, 8  # a number of 64 bits to the 64th power is still quick to compute with


@lru_cache(maxsize=4096)
def is_allowed(target: str) -> bool:
    """Return whether a node may call a target, a name such as ``torch.ops.aten.relu_.default`` or ``_operator.mul``."""
    if target in SIZE_FUNCTIONS:
        return True
    match = _TARGET.fullmatch(target)
    if match is None or match[2] not in _LISTED[match[1]]:
        return False
    overload = _overload(*match.groups())
    return overload is not None and is_pure(overload)


def listed() -> list[str]:
    """Return all targets that :func:`is_allowed` lets through, sorted."""
    found = set(SIZE_FUNCTIONS)
    for namespace, names in _LISTED.items():
        for name in names:
            packet = getattr(getattr(torch.ops, namespace), name, None)
            overloads = [] if packet is None else _overloads(packet)
            found.update(f"torch.ops.{namespace}.{name}.{overload}" for overload in overloads)
    return sorted(target for target in found if is_allowed(target))


def is_pure(overload: Any) -> bool:
    """Return whether an operator is, by its signature, a function of its tensors.

    It may write to its first argument if its name ends in ``_``, as PyTorch's in-place operators do, and to nothing else.
    BatchNorm's running statistics are an exception, since its schema does not mark them as written.

    Args:
        overload: a ``torch._ops.OpOverload``.
    """
    schema = overload._schema
    name = schema.name.partition("::")[2]
    for position, argument in enumerate(schema.arguments):
        own = position == 0 and name.endswith("_")
        statistics = argument.name in ("running_mean", "running_var")
        if argument.alias_info is not None and argument.alias_info.is_write and not (own or statistics):
            return False
        if not _HARMLESS_TYPES.fullmatch(str(argument.type)):
            return False
    has_tensor = any("Tensor" in str(argument.type) for argument in schema.arguments)
    if not has_tensor and name not in _MAKERS:  # TorchScript has functions of numbers and strings with the same names
        return False
    return name in SEEDED or not _is_seeded(overload)


def refused_argument(target: str, name: str, kind: str, value: Any) -> str:
    """Return what an argument of an allowed target would do that it must not, for people; empty if it is harmless.

    Args:
        target: of the node.
        name: of the argument.
        kind: such as ``as_int``; see ``torch/_export/serde/schema.py``.
        value: of the argument.
    """
    operator = target.split(".")[-2] if target.startswith("torch.ops.") else target
    wanted, off = SEEDED.get(operator, ("", None))
    if name in _TRAINING and (kind != "as_bool" or value is not False):
        return "training mode"
    if wanted and name == wanted and name not in _TRAINING and (kind not in ("as_float", "as_int") or value != off):
        return "random numbers"
    if name == "pin_memory" and kind != "as_none" and value is not False:
        return "memory of a device"
    return ""


def count_degree(node: dict[str, Any], degrees: dict[str, int]) -> bool:
    """Note how large a size computed by a node may get, as a power of the input sizes.

    Args:
        node: its inputs and outputs have been checked.
        degrees: of the sizes computed so far, by name; the node's own is added.

    Returns:
        Whether it is small enough: 40 nodes that each square the previous result would take forever.
    """
    operands = [
        degrees.get(given["arg"]["as_sym_int"].get("as_name", ""), 1) if "as_sym_int" in given["arg"] else 1
        for given in node["inputs"]
    ]
    degree = max(operands, default=1)
    if node["target"] == "_operator.mul":
        degree = sum(operands)
    elif node["target"] == "_operator.pow":
        exponent = node["inputs"][1]["arg"].get("as_int") if len(node["inputs"]) == 2 else None
        if exponent is None or not 0 <= exponent <= _MOST_EXPONENT:
            return False
        degree *= exponent
    for output in node["outputs"]:
        if "as_sym_int" in output:
            degrees[output["as_sym_int"].get("as_name", "")] = degree
    return bool(degree <= _MOST_DEGREE)


def _overload(namespace: str, name: str, overload: str) -> Any:
    if namespace == "torchvision":
        try:
            import torchvision  # noqa: F401 - registers them
        except ImportError:
            return None
    packet = getattr(getattr(torch.ops, namespace), name, None)
    if not isinstance(packet, torch._ops.OpOverloadPacket) or overload not in _overloads(packet):
        return None
    return getattr(packet, overload)


def _overloads(packet: Any) -> list[str]:
    names: list[str] = packet.overloads()
    return names


def _is_seeded(overload: Any) -> bool:
    return torch.Tag.nondeterministic_seeded in overload.tags
