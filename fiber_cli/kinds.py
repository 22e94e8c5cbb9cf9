"""Which tasks there are, and which kinds of data each can use."""

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
