"""FIBER: vision-language pre-training with fusion in the backbone.

`from fiber_cli import Fiber` is all that users need; what it loads, torch above all, is loaded with it and not before.
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fiber_cli.inference.detections import Detection, to_supervision
    from fiber_cli.inference.fiber import Fiber
    from fiber_cli.inference.folder_search import FolderSearch
    from fiber_cli.inference.results import Detections, ScoredText
    from fiber_cli.inference.search import SearchResult

__all__ = [
    "Detection",
    "Detections",
    "Fiber",
    "FolderSearch",
    "ScoredText",
    "SearchResult",
    "__version__",
    "to_supervision",
]
__version__ = "0.2.0"

_MODULES = {
    "Fiber": "fiber_cli.inference.fiber",
    "Detection": "fiber_cli.inference.detections",
    "Detections": "fiber_cli.inference.results",
    "FolderSearch": "fiber_cli.inference.folder_search",
    "ScoredText": "fiber_cli.inference.results",
    "SearchResult": "fiber_cli.inference.search",
    "to_supervision": "fiber_cli.inference.detections",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULES[name]), name)
