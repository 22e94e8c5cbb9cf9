"""Which tasks there are, which kinds of data each can use, and which published checkpoints become which."""

REGION_TASKS = ("fine", "detection", "grounding", "refexp")
_REGIONS = (
    "coco",
    "mdetr",
    "odvg",
    "region_shards",
    "flickr_entities",
    "scene_detection",
    "scene_grounding",
    "scene_referring",
)
#: Task → the kinds of source that it trains on and is evaluated on.
KINDS = {
    **dict.fromkeys(("coarse", "retrieval"), ("karpathy", "webdataset", "visual_genome", "scenes")),
    "caption": ("karpathy", "webdataset", "visual_genome", "nocaps", "scenes"),
    "vqa": ("vqa", "scenes"),
    "nlvr2": ("statements", "scenes"),
    **dict.fromkeys(REGION_TASKS, _REGIONS),
}
#: What a published checkpoint was trained for → our task, its settings, and its text length.
CONVERTED = {
    "coarse": ("coarse", {}, 40),
    "retrieval-itc": ("retrieval", {"itm": 0.0}, 50),
    "retrieval-itm": ("retrieval", {"itc": 0.0, "itm_negatives": "random"}, 50),
    "vqa": ("vqa", {}, 50),
    "nlvr2": ("nlvr2", {}, 50),
    "caption": ("caption", {}, 50),
    **{name: (name, {}, 256) for name in REGION_TASKS},
}
