"""The data sets that `fiber eval` knows by name, without what opens them: for help, which loads no source."""

SCENES = "scenes"
#: The built-in scenes, and the data sets of `evaluation.known`.
DATASETS = (
    SCENES,
    "coco",
    "flickr30k",
    "flickr8k",
    "coco_caption",
    "nocaps",
    "vqav2",
    "nlvr2",
    "lvis",
    "odinw13",
    "flickr30k_entities",
    "refcoco",
    "refcoco+",
    "refcocog",
)
