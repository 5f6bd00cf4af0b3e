# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the sections of the GPU suite share: settings, rows, timing, random networks."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from ood_perception.masks.boxes import Boxes
from ood_perception.models import create_model

TINY_UEM: dict[str, Any] = {
    'embed_dim': 24,
    'depth': 4,
    'num_heads': 2,
    'table_size': 56,
    'out_indices': (0, 1, 2, 3),
    'channels': 8,
    'mlp_hidden': 12,
    'projector_hidden': (10, 9),
    'num_components': 3,
    'window': (56, 70),
    'stride': (28, 28),
}


class Row(NamedTuple):
    """
    One measured figure.

    Attributes:
        what: was measured.
        value: the figure.
        unit: of the figure.
        bound: what it must reach, as '>= 30' or '<= 15'; '' = only recorded.
        note: anything that a reader must know.

    """

    what: str
    value: float
    unit: str
    bound: str = ''
    note: str = ''

    def met(self) -> bool:
        """Whether the bound is reached."""
        sign, limit = self.bound.split()
        return self.value >= float(limit) if sign == '>=' else self.value <= float(limit)


@dataclass
class Setting:
    """
    Where and how to measure.

    Attributes:
        tiny: rehearse everything at sizes that any CPU runs; the figures mean nothing.
        runs: timed repetitions.
        matmul: measured float16 rate in TFLOP/s, once there is one.

    """

    tiny: bool
    runs: int
    matmul: float = 0.0
    device: torch.device = field(init=False)

    def __post_init__(self) -> None:
        self.device = torch.device('cpu' if self.tiny else 'cuda')

    def choose(self, real: Any, tiny: Any) -> Any:
        """Take the size to be measured, or the one of the rehearsal."""
        return tiny if self.tiny else real

    def half(self) -> torch.autocast:
        """Run the body in the precision of the profiles, on the CPU of a rehearsal too."""
        return torch.autocast(self.device.type, dtype=torch.float16)

    def compiled(self, function: Any) -> Any:
        """Compile for fixed shapes with CUDA graphs; a rehearsal only traces."""
        if self.tiny:
            return torch.compile(function, backend='eager', dynamic=False)
        return torch.compile(function, mode='reduce-overhead', dynamic=False)

    def milliseconds(self, function: Callable[[], object]) -> float:
        """Median of single calls, each waited for, after three that warm up."""
        times = []
        for run in range(-1 if self.tiny else -3, self.runs):
            self.wait()
            start = time.perf_counter()
            function()
            self.wait()
            if run >= 0:
                times.append(1e3 * (time.perf_counter() - start))
        return statistics.median(times)

    def wait(self) -> None:
        """Wait for the device."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize()

    def noise(self, *shape: int) -> Tensor:
        """Normal noise on the device, the same at every call."""
        generator = torch.Generator(self.device).manual_seed(0)
        return torch.randn(shape, generator=generator, device=self.device)


def uem(setting: Setting, **options: Any) -> Any:
    """Build uem_gd with random weights; a tiny one in a rehearsal."""
    torch.manual_seed(0)
    model: Any = create_model('uem_gd', **setting.choose({}, TINY_UEM), **options)
    return model.eval().to(setting.device)


def sam(setting: Setting) -> Any:
    """Build SAM ViT-B with random weights; a tiny one of 128 pixels in a rehearsal."""
    from segment_anything import modeling, sam_model_registry

    torch.manual_seed(0)
    if not setting.tiny:
        return sam_model_registry['vit_b']().eval().to(setting.device)
    encoder = modeling.ImageEncoderViT(
        img_size=128,
        patch_size=16,
        embed_dim=32,
        depth=2,
        num_heads=2,
        out_chans=32,
        use_rel_pos=True,
        global_attn_indexes=(1,),
        window_size=4,
    )
    return modeling.Sam(
        encoder,
        modeling.PromptEncoder(32, (8, 8), (128, 128), 16),
        modeling.MaskDecoder(
            transformer_dim=32, transformer=modeling.TwoWayTransformer(2, 32, 2, 64)
        ),
    ).eval()


class FixedBoxes(nn.Module):
    """Run a prompt generator, whose random weights find anything, and give five boxes instead."""

    def __init__(self, inner: nn.Module | None) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: Tensor, score: Tensor, *maps: Tensor) -> Boxes:
        """Five boxes on a diagonal of each map."""
        if self.inner is not None:
            self.inner(images, score, *maps)
        batch, height, width = score.shape
        steps = torch.arange(5, device=score.device)[:, None] / 6
        sides = [width, height, width, height]
        shift = [0.0, 0.0, 0.2, 0.2]
        columns = [(steps + s) * side for s, side in zip(shift, sides, strict=True)]
        boxes = torch.cat(columns, 1).expand(batch, 5, 4).contiguous()
        scores = 0.9 - 0.1 * torch.arange(5, device=score.device).expand(batch, 5)
        return Boxes(boxes, scores, torch.ones_like(scores, dtype=torch.bool))
