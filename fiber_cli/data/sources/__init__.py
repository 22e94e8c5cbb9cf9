"""Images and texts from disk to batches. Importing this package pulls in neither torch nor transformers."""

from importlib import import_module

#: The kinds of source that a recipe can name → module and class.
SOURCES = {
    "karpathy": "karpathy.KarpathySource",
    "webdataset": "shards.WebDatasetSource",
    "visual_genome": "visual_genome.VisualGenomeSource",
    "scenes": "scenes.ScenesSource",
    "vqa": "vqa.VqaSource",
    "statements": "statements.StatementSource",
    "nocaps": "nocaps.NocapsSource",
    "coco": "detection.CocoDetection",
    "mdetr": "grounding.MdetrGrounding",
    "odvg": "grounding.OdvgSource",
    "region_shards": "grounding.ShardRegions",
    "flickr_entities": "grounding.FlickrEntities",
    "scene_detection": "grounding.SceneDetection",
    "scene_grounding": "grounding.SceneGrounding",
    "scene_referring": "grounding.SceneReferring",
}


def source_class(kind: str) -> type:
    """The class of a kind of source; the other settings of a recipe's entry are its constructor's arguments."""
    module, name = SOURCES[kind].split(".")
    return getattr(import_module(f"{__name__}.{module}"), name)
