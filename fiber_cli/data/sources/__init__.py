"""The formats of data, one file each. Importing this package loads none of them."""

from collections.abc import Iterator, Mapping
from contextlib import suppress

from fiber_cli.data.source import MAX_PIXELS, Source
from fiber_cli.data.sources.format import Format
from fiber_cli.errors import DeclarationError
from fiber_cli.settings import SourceSettings, load_declaration

#: Kind in recipes → module of this package and its declaration.
FORMATS = {
    "karpathy": "karpathy:KARPATHY",
    "webdataset": "webdataset:WEBDATASET",
    "visual_genome": "visual_genome:VISUAL_GENOME",
    "nocaps": "nocaps:NOCAPS",
    "scenes": "scenes:SCENES",
    "vqa": "vqa:VQA",
    "statements": "statements:STATEMENTS",
    "folder": "folder:LABEL_FOLDER",
    "coco": "coco:COCO",
    "yolo": "yolo:YOLO",
    "voc": "voc:VOC",
    "mdetr": "mdetr:MDETR",
    "odvg": "odvg:ODVG",
    "region_shards": "region_shards:REGION_SHARDS",
    "flickr_entities": "flickr_entities:FLICKR_ENTITIES",
    "scene_detection": "scenes:SCENE_DETECTION",
    "scene_grounding": "scenes:SCENE_GROUNDING",
    "scene_referring": "scenes:SCENE_REFERRING",
}


def source_format(kind: str) -> Format:
    """The declaration of a kind of source; KeyError for one that is not in the table, DeclarationError for a line of it
    that leads to no whole declaration of that kind."""
    line = FORMATS[kind]
    declaration = load_declaration(__name__, "FORMATS", kind, line, form="module:DECLARATION", kind=Format)
    if declaration.kind != kind:
        raise DeclarationError(f"FORMATS names {line} for {kind!r}, which declares {declaration.kind!r}")
    return declaration


def whole_formats() -> Iterator[Format]:
    """The declarations in the order of the table, without those that are wrong: these end the commands that ask for
    them, and no others."""
    for kind in FORMATS:
        with suppress(DeclarationError):
            yield source_format(kind)


class SettingsByKind(Mapping[str, type[SourceSettings]]):
    """Kind → settings class; a format's module is loaded when it is asked for."""

    def __getitem__(self, kind: str) -> type[SourceSettings]:
        return source_format(kind).settings

    def __iter__(self) -> Iterator[str]:
        return iter(FORMATS)

    def __len__(self) -> int:
        return len(FORMATS)


def _opened(kind: type[Source], settings: SourceSettings) -> Source:
    # Here because they need numpy.
    from fiber_cli.data.folder import FolderSource
    from fiber_cli.data.kept_sources import open_kept

    return open_kept(kind, settings) if issubclass(kind, FolderSource) else kind(**settings.arguments())


def open_source(settings: SourceSettings, *, max_pixels: int = MAX_PIXELS) -> Source:
    """The source that an entry of a recipe names, without what its `exclude` leaves out; `UserError` where its files
    cannot be used."""
    source = _opened(source_format(settings.kind).source, settings)
    source.max_pixels = max_pixels
    source.settings = settings
    if settings.exclude is None:
        return source
    # Here because it needs numpy, and the formats that it reads.
    from fiber_cli.data.exclude import without_excluded

    return without_excluded(source, settings.exclude)
