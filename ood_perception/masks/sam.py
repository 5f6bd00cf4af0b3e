# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Segment Anything (SAM) and MobileSAM as mask models.

On a CPU an image is embedded only when it has a box. The arithmetic equals
`SamPredictor.predict_torch` with `boxes` alone and one mask a box, as S2M uses it (arXiv
2411.16816, section 3.3).
"""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints import load_checkpoint
from ood_perception.checkpoints.store import catalogue, resolve, wrong_sha256
from ood_perception.masks.boxes import clean_boxes, waits

EMPTY = -20.0  # logit of the masks of unusable boxes

INSTALL = {
    'segment_anything': 'pip install segment-anything',
    'mobile_sam': 'pip install git+https://github.com/ChaoningZhang/MobileSAM',
}
"""Packages that a SAM needs, and how to install them."""


class SamMaskModel(nn.Module):
    """
    SAM or MobileSAM, a `Sam` module, prompted with boxes; see `base.MaskModel`.

    `precision` is that of the image encoder on a GPU: 'float32', 'float16' or 'bfloat16'; `chunk`
    is the most boxes in one call of the decoder.
    """

    def __init__(self, sam: nn.Module, precision: str = 'float32', chunk: int = 128) -> None:
        super().__init__()
        if precision not in ('float32', 'float16', 'bfloat16'):
            raise ValueError(
                f'precision: expected float32, float16 or bfloat16, got {precision!r}'
            )
        if chunk < 1:
            raise ValueError(f'chunk: expected at least 1, got {chunk}')
        self.sam: Any = sam.eval().requires_grad_(False)
        self.chunk = chunk
        self.dtype: torch.dtype = getattr(torch, precision)

    @torch.no_grad()
    def forward(self, images: Tensor, probability: Tensor, boxes: Tensor) -> Tensor:
        """Outline the object in each box; see `base.MaskModel`. The probability is not read."""
        batch, slots = boxes.shape[:2]
        size = int(images.shape[2]), int(images.shape[3])
        out = torch.full((batch * slots, *size), EMPTY, device=boxes.device)
        boxes, valid = (part.flatten(0, 1) for part in clean_boxes(boxes, *size))
        rows, frames = torch.arange(batch * slots, device=boxes.device), None
        if not waits(boxes.device):
            rows = rows[valid]
            frames = (rows // slots).unique()
            images = images[frames]
        if not len(rows):
            return out.view(batch, slots, *size)
        embeddings = self._embed(images)
        for part in torch.split(rows, self.chunk):
            source = part // slots
            if frames is not None:
                source = torch.searchsorted(frames, source)
            masks = self._decode(embeddings[source], boxes[part], size)
            out[part] = torch.where(valid[part, None, None], masks, EMPTY)
        return out.view(batch, slots, *size)

    def _encoder_size(self, size: tuple[int, int]) -> tuple[int, int]:
        """Size (h, w) of a frame of (H, W) pixels after its longer side became the encoder's."""
        scale = self.sam.image_encoder.img_size * 1.0 / max(size)
        return int(size[0] * scale + 0.5), int(size[1] * scale + 0.5)

    def _embed(self, images: Tensor) -> Tensor:
        """Embed uint8 (B, 3, H, W) RGB frames."""
        device = images.device
        small = _shrink(images, self._encoder_size((int(images.shape[2]), int(images.shape[3]))))
        half = torch.autocast(
            device.type, self.dtype, enabled=images.is_cuda and self.dtype != torch.float32
        )
        # The encoder makes tables of indices where torch makes tensors: a GPU would wait for them.
        with half, device:
            embeddings = self.sam.image_encoder(self.sam.preprocess(small))
        return embeddings.float()  # type: ignore[no-any-return]

    def _decode(self, embeddings: Tensor, boxes: Tensor, size: tuple[int, int]) -> Tensor:
        """Logits (N, H, W) of N boxes, each with its frame's embedding."""
        new = self._encoder_size(size)
        across, down = new[1] / size[1], new[0] / size[0]
        scaled = torch.stack([boxes[:, i] * (down if i % 2 else across) for i in range(4)], 1)
        sparse, dense = self.sam.prompt_encoder(points=None, boxes=scaled, masks=None)
        # `MaskDecoder.predict_masks` with an embedding for each box, and of its masks the first.
        decoder, count = self.sam.mask_decoder, boxes.shape[0]
        own = torch.cat([decoder.iou_token.weight, decoder.mask_tokens.weight])
        tokens = torch.cat([own.expand(count, -1, -1), sparse], 1)
        places = self.sam.prompt_encoder.get_dense_pe().expand(count, -1, -1, -1)
        answers, seen = decoder.transformer(embeddings + dense, places, tokens)
        fine = decoder.output_upscaling(seen.mT.reshape(embeddings.shape))
        weights = decoder.output_hypernetworks_mlps[0](answers[:, 1])
        low = torch.einsum('nc,nchw->nhw', weights, fine)[:, None]
        return self.sam.postprocess_masks(low, new, size)[:, 0]  # type: ignore[no-any-return]


def create_sam(kind: str, weights: str = '', **options: Any) -> SamMaskModel:
    """
    Build a SAM ('vit_b', 'vit_l', 'vit_h') or MobileSAM ('mobile') with its weights.

    `weights` is the path or catalogue name of a checkpoint; one that the catalogue knows must be
    as it was published. Where the package is not installed, the ImportError says how to do so.
    """
    package, entry = ('mobile_sam', 'vit_t') if kind == 'mobile' else ('segment_anything', kind)
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        text = f'this mask model needs the package {package}: {INSTALL[package]}'
        raise ImportError(text) from error
    if not weights:
        raise ValueError('weights: expected a checkpoint; `ood weights list` names those known')
    path = resolve(weights)
    for known in catalogue().values():
        if known.file == path.name and (wrong := wrong_sha256(known, path)):
            raise ValueError(f'weights {wrong}')
    sam = module.sam_model_registry[entry]()
    load_checkpoint(sam, path, origin='sam')
    return SamMaskModel(sam, **options)


def _shrink(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (B, 3, H, W) to float (B, 3, h, w) as SAM does: antialiased, whole numbers."""
    if images.device.type == 'cpu':
        # Pillow rounds its weights in its own way; using it makes the host equal to the bit.
        from PIL import Image

        small = [
            np.array(Image.fromarray(pixels).resize(size[::-1], Image.Resampling.BILINEAR))
            for pixels in np.ascontiguousarray(images.permute(0, 2, 3, 1).numpy())
        ]
        return torch.from_numpy(np.stack(small)).permute(0, 3, 1, 2).float()
    return F.interpolate(images.float(), size, mode='bilinear', antialias=True).round()
