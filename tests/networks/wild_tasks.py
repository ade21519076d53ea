"""The task files that a newcomer writes for the networks of ``wild``, and the options beside them."""

from __future__ import annotations

IMAGENET = ("--mean", "0.485,0.456,0.406", "--std", "0.229,0.224,0.225")
UNIT = ("--mean", "0,0,0", "--std", "1,1,1")


def _task(name: str, kind: str, output: int | str, **fields: object) -> str:
    def value(field: object) -> str:
        if isinstance(field, (list, tuple)):
            return f"[{', '.join(map(value, field))}]"
        return f'"{field}"' if isinstance(field, str) else str(field).lower()

    lines = [f"{key} = {value(field)}" for key, field in {"kind": kind, "output": output, **fields}.items()]
    return "\n".join(["[[task]]", f'name = "{name}"', *lines, ""])


_AGES = ["0-2", "3-9", "10-19", "20-29", "30-39", "40-49", "50-59", "60-69", "70+"]
_RACES = ["White", "Black", "Latino", "East Asian", "Southeast Asian", "Indian", "Middle Eastern"]
_ATTRIBUTES = """
    5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair
    Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male Mouth_Slightly_Open Mustache
    Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair Wavy_Hair
    Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace Wearing_Necktie Young
""".split()  # noqa: SIM905 - as list_attr_celeba.txt has them
_FIVE = ["left_eye", "right_eye", "nose", "mouth_left", "mouth_right"]
_FACES = (("age", "regression"), ("gender", "binary"), ("race", "multiclass"))

TASKS: dict[str, str] = {
    "fairface": _task("race", "multiclass", 0, columns=[0, 7], labels=_RACES)
    + _task("gender", "binary", 0, columns=[7, 9], labels=["male", "female"])
    + _task("age", "multiclass", 0, columns=[9, 18], labels=_AGES),
    "hopenet": "".join(
        _task(name, "distribution", place, unit="degrees", values="-99:99:3", period=360)
        for place, name in enumerate(("yaw", "pitch", "roll"))
    ),
    "mivolo": _task("gender", "binary", 0, columns=[0, 2], labels=["male", "female"])
    + _task("age", "regression", 0, columns=[2, 3], unit="years", scale=94.0, offset=48.0),
    "sixdrepnet": _task("rotation", "rotation", 0),
    "pfld": _task("landmarks", "vector", 1, order="pairs", frame="unit", normaliser=["60", "72"]),
    "coral": _task("age", "ordinal", 0, values="20:31:1", unit="years"),
    "ssrnet": _task("age", "regression", 0, unit="years") + _task("gender", "binary", 1, labels=["female", "male"]),
    "utkface": _task("age", "regression", "age", unit="years", scale=116.0)
    + _task("gender", "binary", "gender", labels=["male", "female"], activation="sigmoid")
    + _task("race", "multiclass", "race", labels=["White", "Black", "Asian", "Indian", "Other"]),
    "celeba": _task("attributes", "multilabel", "attributes", labels=_ATTRIBUTES)
    + _task("landmarks", "vector", "landmarks", names=_FIVE, order="pairs", frame="input"),
    "gaze": _task("gaze", "vector", 0, names=["pitch", "yaw"], unit="radians")
    + _task("blink", "binary", 1, labels=["open", "closed"]),
    "twinlitenet": _task("area", "mask", 0, labels=["other", "drivable"])
    + _task("lanes", "mask", 1, labels=["other", "lane"]),
    "refinenet": _task("segmentation", "segmentation", 0)
    + _task("depth", "depth", 1, unit="metres", valid_range=[0, 8])
    + _task("normals", "normals", 2),
    "mtinet": _task("semseg", "segmentation", "semseg")
    + _task("depth", "depth", "depth", unit="metres")
    + _task("normals", "normals", "normals")
    + _task("edge", "raw", "edge"),
    "mtan": _task("segmentation", "segmentation", "0.0", activation="log_softmax")
    + _task("depth", "depth", "0.1", unit="metres")
    + _task("normals", "normals", "0.2"),
    "segformer": _task("segmentation", "segmentation", "logits")
    + _task("depth", "depth", "predicted_depth", unit="metres")
    + _task("features", "raw", "hidden_states.1"),
    "rgbd": _task("segmentation", "segmentation", 0) + _task("kitchen", "binary", 3, labels=["no", "yes"]),
    "flow": _task("flow", "raw", "flow_preds.1") + _task("depth", "depth", "depth", unit="metres"),
    "retinaface": _task("boxes", "raw", 0) + _task("scores", "raw", 1) + _task("landmarks", "raw", 2),
    "yolop": _task("vehicles", "raw", "0.0")
    + _task("area", "mask", 1, labels=["other", "drivable"])
    + _task("lanes", "mask", 2, labels=["other", "lane"]),
    "yolopv2": "".join(_task(f"rows_{8 << level}", "raw", f"0.0.{level}") for level in range(3))
    + _task("area", "mask", 1, labels=["other", "drivable"])
    + _task("lanes", "mask", 2, labels=["lane"]),
    "hybridnets": _task("boxes", "raw", 1)
    + _task("scores", "raw", 2)
    + _task("segmentation", "segmentation", 4, labels=["other", "road", "lane"]),
    "yolopose": _task("persons", "raw", 0),
    "scrfd": "".join(
        _task(f"{kind}_{stride}", "raw", f"{place}.{level}")
        for place, kind in enumerate(("score", "bbox", "kps"))
        for level, stride in enumerate((8, 16, 32))
    ),
    "fairmot": "".join(_task(name, "raw", f"0.{name}") for name in ("hm", "wh", "id", "reg")),
    "detr": _task("classes", "raw", "pred_logits") + _task("boxes", "raw", "pred_boxes"),
    "maskrcnn": _task("boxes", "raw", "0.boxes") + _task("masks", "raw", "0.masks"),
    "nested": _task("age", "regression", "faces.0.age", unit="years")
    + _task("gender", "binary", "faces.1.0", labels=["male", "female"])
    + _task("race", "multiclass", "race"),
    "padded_pool": _task("maps", "raw", 0) + _task("means", "raw", 1),
    "tied": "".join(_task(name, kind, name) for name, kind in _FACES),
    "pair": _task("same", "binary", "same", labels=["no", "yes"]) + _task("ages", "raw", "ages"),
    "sized": _task("seg", "segmentation", "seg") + _task("place", "multiclass", "place"),
}
TASKS["rgb_and_depth"] = TASKS["rgbd"]
TASKS["flow_bare"], TASKS["sized_partial"] = TASKS["flow"], TASKS["sized"]
for _name in ("dataclass", "namespace", "fields"):
    TASKS[_name] = "".join(_task(name, kind, name) for name, kind in _FACES)
for _name in (
    *("baked", "baked_constant", "mixing", "stateless", "dropping", "noisy", "extra_state", "deformable", "odd_pool"),
    *("branching", "spectral", "silent", "gray", "rgba", "six_channels"),
):
    TASKS[_name] = "".join(_task(name, kind, place) for place, (name, kind) in enumerate(_FACES))

OPTIONS: dict[str, tuple[str, ...]] = {
    "fairface": IMAGENET,
    "hopenet": (*IMAGENET, "--fit", "crop", "--resize-to", "72"),
    "mivolo": (
        *("--fit", "letterbox", "--mean", "0.485,0.456,0.406,0.485,0.456,0.406"),
        *("--std", "0.229,0.224,0.225,0.229,0.224,0.225"),
    ),
    "pfld": UNIT,
    "ssrnet": UNIT,
    "coral": ("--mean", "0", "--std", "1"),
    "gaze": ("--mean", "0", "--std", "1"),
    "gray": ("--mean", "0.5", "--std", "0.5"),
    "rgba": ("--mean", "0.485,0.456,0.406,0", "--std", "0.229,0.224,0.225,1"),
    "rgbd": ("--mean", "0.485,0.456,0.406,0.5", "--std", "0.229,0.224,0.225,0.25"),
    "six_channels": ("--mean", "0.5,0.5,0.5,0.5,0.5,0.5", "--std", "0.25,0.25,0.25,0.25,0.25,0.25"),
    "twinlitenet": UNIT,
    "retinaface": ("--channels", "bgr", "--pixel-range", "255", "--mean", "104,117,123", "--std", "1,1,1"),
    "yolop": (*IMAGENET, "--fit", "letterbox"),
    "yolopv2": (*UNIT, "--fit", "letterbox"),
    "hybridnets": IMAGENET,
    "yolopose": (*UNIT, "--fit", "letterbox"),
    "scrfd": ("--pixel-range", "255", "--mean", "127.5,127.5,127.5", "--std", "128,128,128"),
    "sized": ("--constant", "out_size=32x32"),
    "flow_bare": ("--constant", "attn_type=swin", "--constant", "corr_radius_list=2"),
}
