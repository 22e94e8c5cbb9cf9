"""Features of earlier steps, kept as further negatives of ITC."""

import torch
from torch import Tensor, nn


class FeatureQueue(nn.Module):
    """The newest `size` features of images and of texts: `image` and `text`, float32 (size, D). The first `filled` rows
    have been written, the next goes to row `start`; the rest is noise, as in the published code."""

    image: Tensor
    text: Tensor

    def __init__(self, size: int, width: int):
        super().__init__()
        self.size = size
        self.start = 0
        self.filled = 0
        noise = torch.Generator().manual_seed(0)
        self.register_buffer("image", torch.randn(size, width, generator=noise, device="cpu"), persistent=False)
        self.register_buffer("text", torch.randn(size, width, generator=noise, device="cpu"), persistent=False)

    @torch.no_grad()
    def push(self, image: Tensor, text: Tensor) -> None:
        """Write features (G, D), oldest first out; only into a queue with rows."""
        image, text = image[-self.size :], text[-self.size :]
        count = len(image)
        rows = (self.start + torch.arange(count, device=image.device)) % self.size
        self.image[rows] = image
        self.text[rows] = text
        self.start = (self.start + count) % self.size
        self.filled = min(self.size, self.filled + count)

    def state(self) -> dict[str, Tensor]:
        """What exact resuming needs; nothing of a queue without rows."""
        if not self.size:
            return {}
        position = torch.tensor([self.start, self.filled])
        return {"image_queue": self.image, "text_queue": self.text, "queue_position": position}

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Inverse of `state`."""
        if self.size:
            self.image.copy_(state["image_queue"])
            self.text.copy_(state["text_queue"])
            self.start, self.filled = state["queue_position"].tolist()
