"""Features of earlier batches, kept as further negatives (MoCo, He et al., 2020; ALBEF, Li et al., 2021)."""

from collections.abc import Mapping

import torch


class FeatureQueue:
    """The newest `size` features of images and as many of texts; unfilled slots are random."""

    def __init__(self, size: int, dimensions: int, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.features = tuple(
            torch.nn.functional.normalize(torch.randn(size, dimensions, generator=generator), dim=-1) for _ in range(2)
        )
        self._positions = [0, 0]

    def on(self, device: torch.device) -> tuple[torch.Tensor, ...]:
        """The features, which stay on that device: thousands of them would take longer to move than to compare."""
        self.features = tuple(feature.to(device) for feature in self.features)
        return self.features

    def push(self, images: torch.Tensor, texts: torch.Tensor) -> None:
        """Replace the oldest features by these (n, d); of more than fit, the last stay."""
        for side, new in enumerate((images, texts)):
            queue = self.features[side]
            size = len(queue)
            if size == 0:
                continue
            kept = new[-size:].detach().to(queue.device)
            positions = (self._positions[side] + torch.arange(len(kept))) % size
            queue[positions] = kept
            self._positions[side] = (self._positions[side] + len(kept)) % size

    def state(self) -> dict[str, torch.Tensor]:
        """The features and positions."""
        return {"images": self.features[0], "texts": self.features[1], "places": torch.tensor(self._positions)}

    def load_state(self, state: Mapping[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        self.features = state["images"], state["texts"]
        self._positions = state["places"].tolist()
