"""Images and texts from disk to batches."""

from fiber_cli.data.detection import CocoDetection
from fiber_cli.data.grounding import (
    FlickrEntities,
    MdetrGrounding,
    OdvgSource,
    SceneDetection,
    SceneGrounding,
    SceneReferring,
    ShardRegions,
)
from fiber_cli.data.karpathy import KarpathySource
from fiber_cli.data.nocaps import NocapsSource
from fiber_cli.data.scenes import ScenesSource
from fiber_cli.data.shards import WebDatasetSource
from fiber_cli.data.statements import StatementSource
from fiber_cli.data.visual_genome import VisualGenomeSource
from fiber_cli.data.vqa import VqaSource

#: The kinds of source that a recipe can name; the other fields of its entry are the constructor's arguments.
SOURCES = {
    "karpathy": KarpathySource,
    "webdataset": WebDatasetSource,
    "visual_genome": VisualGenomeSource,
    "scenes": ScenesSource,
    "vqa": VqaSource,
    "statements": StatementSource,
    "nocaps": NocapsSource,
    "coco": CocoDetection,
    "mdetr": MdetrGrounding,
    "odvg": OdvgSource,
    "region_shards": ShardRegions,
    "flickr_entities": FlickrEntities,
    "scene_detection": SceneDetection,
    "scene_grounding": SceneGrounding,
    "scene_referring": SceneReferring,
}
