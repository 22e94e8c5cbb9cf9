"""The former place of `Fiber`; gone in the next release."""

import warnings

from fiber_cli.inference.describe import describe_images
from fiber_cli.inference.detections import Detection, to_supervision
from fiber_cli.inference.fiber import Fiber
from fiber_cli.inference.picture_files import SUFFIXES, find_images
from fiber_cli.inference.pictures import Picture, read_picture
from fiber_cli.inference.queries import Query

__all__ = [
    "SUFFIXES",
    "Detection",
    "Fiber",
    "Picture",
    "Query",
    "describe_images",
    "find_images",
    "read_picture",
    "to_supervision",
]

warnings.warn("fiber_cli.infer is now fiber_cli: write `from fiber_cli import Fiber`", DeprecationWarning, stacklevel=2)
