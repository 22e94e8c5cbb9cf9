"""Images and texts from disk to batches. Importing this package pulls in neither torch nor transformers."""

from collections.abc import Iterator, Mapping
from importlib import import_module


class _Sources(Mapping[str, type]):
    """Kind → class, whose module is imported when it is asked for."""

    def __init__(self, places: dict[str, str]):
        self._places = places

    def __getitem__(self, kind: str) -> type:
        module, name = self._places[kind].split(".")
        return getattr(import_module(f"{__name__}.{module}"), name)

    def __iter__(self) -> Iterator[str]:
        return iter(self._places)

    def __len__(self) -> int:
        return len(self._places)


#: The kinds of source that a recipe can name; the other fields of its entry are the constructor's arguments.
SOURCES = _Sources(
    {
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
)
