"""Images and texts from disk to batches. Importing this package pulls in neither torch nor transformers."""

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
}
