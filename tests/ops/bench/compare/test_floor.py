import pytest
import torch
from torch import nn

from ops.bench.compare.floor import measure_floor


class RecordingLinear(nn.Linear):
    """Records the shape of each input."""

    shapes: list[tuple[int, ...]]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.shapes.append(tuple(x.shape))
        return super().forward(x)


def test_the_floor_runs_every_linear_at_the_batch_size() -> None:
    shapes: list[tuple[int, ...]] = []
    layers = [RecordingLinear(8, 16), nn.LayerNorm(16), RecordingLinear(16, 4)]
    for layer in layers:
        if isinstance(layer, RecordingLinear):
            layer.shapes = shapes
    (floor,) = measure_floor(nn.Sequential(*layers), [3])
    assert shapes[:2] == [(3, 8), (3, 16)]
    assert floor.tokens_per_s * floor.ms / 1000 == pytest.approx(3)
