"""What turns a fused pass into boxes with a score for every text token (fine stage, paper section 3.3).

The encoder stays outside, so that one image stem serves the prompts of all chunks: `Detector` takes what
`FusedEncoder.fuse(..., last_norm=True)` returns.
"""

from collections.abc import Callable, Mapping

from torch import nn

from fiber_cli.errors import UserError
from fiber_cli.model.config import DetectorConfig, FiberConfig, TextConfig
from fiber_cli.model.detector.anchors import STRIDES
from fiber_cli.model.detector.deep_fusion import DeepFusion
from fiber_cli.model.detector.detection_head import DetectionHead, DetectionOutput, Truth
from fiber_cli.model.detector.fpn import Fpn
from fiber_cli.model.detector.head import TokenHead
from fiber_cli.model.fusion import Fused
from fiber_cli.model.norm import LayerNorm


def _atss(detector: DetectorConfig, text: TextConfig) -> DetectionHead:
    fusions = []
    if detector.fusion == "deep":
        for _ in range(detector.blocks):
            fusions.append(DeepFusion(detector.channels, text))
    return TokenHead(detector.channels, detector.blocks, text.hidden, detector.log_scale, fusions)


# The heads of torchvision are imported where one is built: torchvision takes longer to import than all else.
def _retinanet(detector: DetectorConfig, text: TextConfig) -> DetectionHead:
    from fiber_cli.model.detector.retinanet import RetinaNetHead

    return RetinaNetHead(detector.channels, text.hidden, detector.log_scale)


def _faster_rcnn(detector: DetectorConfig, text: TextConfig) -> DetectionHead:
    from fiber_cli.model.detector.faster_rcnn import FasterRcnnHead

    return FasterRcnnHead(detector.channels, text.hidden, detector.log_scale, detector.sampled_regions)


#: What `DetectorConfig.head` names.
HEADS: Mapping[str, Callable[[DetectorConfig, TextConfig], DetectionHead]] = {
    "atss": _atss,
    "retinanet": _retinanet,
    "faster_rcnn": _faster_rcnn,
}


def _head_classes() -> tuple[type[DetectionHead], ...]:
    from fiber_cli.model.detector.faster_rcnn import FasterRcnnHead
    from fiber_cli.model.detector.retinanet import RetinaNetHead

    return TokenHead, RetinaNetHead, FasterRcnnHead


class Detector(nn.Module):
    """Norms on the last three stage outputs, feature pyramid and head. UserError unless the stages have the strides
    8, 16 and 32, and for fusion on top, which leaves the earlier stages as they are."""

    def __init__(self, config: FiberConfig, detector: DetectorConfig):
        super().__init__()
        image = config.image
        if config.top_layers:
            raise UserError(
                "fusion=top is for tasks on whole images: it fuses the last map alone, and boxes are found in three; "
                "set model.fusion to backbone, or task.head_fusion to deep with model.fusion_layers=0"
            )
        strides = image.strides[-3:]
        if strides != STRIDES[:3]:
            raise UserError(
                f"patch={image.patch} and depths={image.depths} give stages of strides {strides} at the end; the "
                f"detector needs {STRIDES[:3]}: use patch 4 with four stages or patch 8 with three"
            )
        dims = image.dims[-3:]
        self.norms = nn.ModuleList(LayerNorm(dim) for dim in dims)
        self.fpn = Fpn(dims, detector.channels, detector.drop_block)
        self.head = HEADS[detector.head](detector, config.text)

    @property
    def of_other_heads(self) -> tuple[str, ...]:
        """Beginnings of the names of weights that a detector with another head has and this one has not."""
        prefixes: list[str] = []
        for other in _head_classes():
            if not isinstance(self.head, other):
                prefixes.extend(f"head.{prefix}" for prefix in other.OWN)
        return tuple(prefixes)

    def forward(self, fused: Fused, truth: Truth | None = None) -> DetectionOutput:
        """The output of a fused pass with the last text LayerNorm on -> what the head says. truth: in training, see
        `DetectionHead`."""
        maps = []
        for norm, map_BHWC in zip(self.norms, fused.pyramid[-3:], strict=True):
            maps.append(norm(map_BHWC).permute(0, 3, 1, 2))
        text_BLC = fused.text * fused.mask[:, :, None]
        output: DetectionOutput = self.head(self.fpn(maps), text_BLC, fused.mask, truth)
        return output
