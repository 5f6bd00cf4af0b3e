# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Segment Anything and its kin as box-prompted segmenters.

The image embedding is computed once a frame, and only when there is a box; all boxes go through
the decoder together. The arithmetic equals `SamPredictor.predict_torch` with `boxes` alone and one
mask a box, as S2M uses it (arXiv 2411.16816, section 3.3).
"""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.checkpoints import load_checkpoint
from ood_perception.checkpoints.store import catalogue, resolve, wrong_sha256
from ood_perception.masks.boxes import clean_boxes

EMPTY = -20.0
"""Logit of the masks of unusable boxes."""

_PACKAGES = {
    # kind: (module, registry attribute, entry, how to install)
    'vit_b': ('segment_anything', 'vit_b', 'pip install segment-anything'),
    'vit_l': ('segment_anything', 'vit_l', 'pip install segment-anything'),
    'vit_h': ('segment_anything', 'vit_h', 'pip install segment-anything'),
    'mobile': (
        'mobile_sam',
        'vit_t',
        'pip install git+https://github.com/ChaoningZhang/MobileSAM',
    ),
}


class SamSegmenter(nn.Module):
    """
    SAM or MobileSAM, prompted with boxes.

    Args:
        sam: a `Sam` module (image_encoder, prompt_encoder, mask_decoder).
        choose: 'single' takes SAM's one mask for unambiguous prompts (the paper's way); 'score'
            lets SAM offer three and takes the one that agrees best with the probability map.
        precision: of the image encoder on a GPU: 'float32', 'float16' or 'bfloat16'.
        chunk: boxes in one decoder call at most.

    Raises:
        ValueError: an option out of its range.

    """

    def __init__(
        self,
        sam: nn.Module,
        choose: str = 'single',
        precision: str = 'float32',
        chunk: int = 128,
    ) -> None:
        super().__init__()
        if choose not in ('single', 'score'):
            raise ValueError(f"choose: expected 'single' or 'score', got {choose!r}")
        if precision not in ('float32', 'float16', 'bfloat16'):
            raise ValueError(
                f'precision: expected float32, float16 or bfloat16, got {precision!r}'
            )
        if chunk < 1:
            raise ValueError(f'chunk: expected at least 1, got {chunk}')
        self.sam: Any = sam.eval().requires_grad_(False)
        self.choose, self.chunk = choose, chunk
        self.dtype: torch.dtype = getattr(torch, precision)
        self._image = torch.zeros(1, 1, 3, dtype=torch.uint8)
        self._probability = torch.zeros(1, 1)
        self._embedding: Tensor | None = None

    def set_frame(self, image: Tensor, score: Tensor, probability: Tensor) -> None:
        """Take a frame; see `segmenters.Segmenter`. The embedding waits for the first box."""
        self._image, self._probability, self._embedding = image, probability, None

    @torch.no_grad()
    def masks(self, boxes: Tensor) -> Tensor:
        """Outline the object in each box; see `segmenters.Segmenter`."""
        height, width = self._image.shape[:2]
        out = torch.full((len(boxes), height, width), EMPTY, device=boxes.device)
        boxes, some = clean_boxes(boxes, height, width)
        rows = some.nonzero()[:, 0]
        if not len(rows):
            return out
        if self._embedding is None:
            self._embedding = self._embed(self._image)
        for part in rows.split(self.chunk):
            out[part] = self._decode(boxes[part])
        return out

    def _size(self) -> tuple[int, int]:
        """Height and width of the frame after its longer side became the encoder's."""
        height, width = self._image.shape[:2]
        scale = self.sam.image_encoder.img_size * 1.0 / max(height, width)
        return int(height * scale + 0.5), int(width * scale + 0.5)

    def _embed(self, image: Tensor) -> Tensor:
        """Embedding of a uint8 (H, W, 3) RGB frame."""
        with torch.autocast(
            image.device.type, self.dtype, enabled=image.is_cuda and self.dtype != torch.float32
        ):
            pixels = _resize(image, self._size())[None]
            return self.sam.image_encoder(self.sam.preprocess(pixels)).float()

    def _decode(self, boxes: Tensor) -> Tensor:
        height, width = self._image.shape[:2]
        new_height, new_width = self._size()
        scale = boxes.new_tensor([new_width / width, new_height / height] * 2)
        sparse, dense = self.sam.prompt_encoder(points=None, boxes=boxes * scale, masks=None)
        low, quality = self.sam.mask_decoder(
            image_embeddings=self._embedding,
            image_pe=self.sam.prompt_encoder.get_dense_pe(),
            sparse_prompt_embeddings=sparse,
            dense_prompt_embeddings=dense,
            multimask_output=self.choose == 'score',
        )
        if self.choose == 'score':
            best = self._agreement(low, quality, boxes * scale).argmax(1)
            low = low[torch.arange(len(low), device=low.device), best][:, None]
        return self.sam.postprocess_masks(low, (new_height, new_width), (height, width))[:, 0]

    def _agreement(self, low: Tensor, quality: Tensor, boxes: Tensor) -> Tensor:
        """Overlap of each offered mask with the probability, and SAM's own opinion, (N, M)."""
        scale = low.shape[-1] / self.sam.image_encoder.img_size
        height, width = (max(1, round(side * scale)) for side in self._size())
        p = torch.nan_to_num(self._probability.float(), nan=0.0)[None, None]
        p = F.interpolate(p, (height, width), mode='bilinear', antialias=True)[0, 0]
        x = torch.arange(width, device=low.device) + 0.5
        y = torch.arange(height, device=low.device) + 0.5
        x1, y1, x2, y2 = (side[:, None] * scale for side in boxes.unbind(1))
        inside = ((y >= y1) & (y < y2))[:, :, None] & ((x >= x1) & (x < x2))[:, None]
        # What is unknown outside of the box is another object's.
        p = (p * inside)[:, None]
        masks = (low[..., :height, :width] > 0).float()
        common = (masks * p).sum((-2, -1))
        union = torch.maximum(masks, p).sum((-2, -1)).clamp(min=1e-6)
        return common / union + 0.25 * quality


class Sam2Segmenter(nn.Module):
    """
    SAM 2, prompted with boxes through its own image predictor.

    Args:
        predictor: a `SAM2ImagePredictor` (set_image, predict).

    """

    def __init__(self, predictor: Any) -> None:
        super().__init__()
        self.predictor = predictor
        self._image = torch.zeros(1, 1, 3, dtype=torch.uint8)
        self._ready = False

    def set_frame(self, image: Tensor, score: Tensor, probability: Tensor) -> None:
        """Take a frame; see `segmenters.Segmenter`. The embedding waits for the first box."""
        self._image, self._ready = image, False

    @torch.no_grad()
    def masks(self, boxes: Tensor) -> Tensor:
        """Outline the object in each box; see `segmenters.Segmenter`."""
        height, width = self._image.shape[:2]
        out = torch.full((len(boxes), height, width), EMPTY, device=boxes.device)
        boxes, some = clean_boxes(boxes, height, width)
        rows = some.nonzero()[:, 0]
        if not len(rows):
            return out
        if not self._ready:
            self.predictor.set_image(self._image.cpu().numpy())
            self._ready = True
        logits, _, _ = self.predictor.predict(
            box=boxes[rows].cpu().numpy(), multimask_output=False, return_logits=True
        )
        found = torch.from_numpy(np.asarray(logits, np.float32)).reshape(-1, height, width)
        out[rows] = found.to(out.device)
        return out


def create_sam(
    kind: str,
    weights: str = '',
    config: str = 'configs/sam2.1/sam2.1_hiera_t.yaml',
    **options: Any,
) -> nn.Module:
    """
    Build a SAM segmenter with its weights.

    Args:
        kind: 'vit_b', 'vit_l', 'vit_h', 'mobile' or 'sam2'.
        weights: path or catalogue name of the checkpoint.
        config: of SAM 2 only, as its package names it.
        **options: of `SamSegmenter`.

    Raises:
        ImportError: the package is not installed; the message says how.
        ValueError: no weights given, or they do not fit, or the file is not what was published.
        OSError: there is no such file.

    """
    package = 'sam2' if kind == 'sam2' else _PACKAGES[kind][0]
    how = 'pip install sam2' if kind == 'sam2' else _PACKAGES[kind][2]
    try:
        module = importlib.import_module(package)
    except ImportError as error:
        raise ImportError(f'this segmenter needs the package {package}: {how}') from error
    if not weights:
        raise ValueError('weights: expected a checkpoint; `ood weights list` names those known')
    path = _checked(weights)
    if kind == 'sam2':
        build = importlib.import_module('sam2.build_sam').build_sam2
        predictor = importlib.import_module('sam2.sam2_image_predictor').SAM2ImagePredictor
        device = 'cuda' if torch.cuda.is_available() else 'cpu'
        # Without its own reader: ours runs nothing that a file holds.
        sam = build(config, ckpt_path=None, device=device)
        load_checkpoint(sam, path, origin='sam')
        return Sam2Segmenter(predictor(sam))
    sam = module.sam_model_registry[_PACKAGES[kind][1]]()
    load_checkpoint(sam, path, origin='sam')
    return SamSegmenter(sam, **options)


def _checked(weights: str) -> Path:
    """Find a weight file; one that the catalogue knows must be as it was published."""
    path = resolve(weights)
    for entry in catalogue().values():
        if entry.file == path.name and (wrong := wrong_sha256(entry, path)):
            raise ValueError(f'weights {wrong}')
    return path


def _resize(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize uint8 (H, W, 3) to float (3, h, w) as SAM does: antialiased, whole numbers."""
    if image.device.type == 'cpu':
        # Pillow rounds its weights its own way; on the host we use it, to be equal to the bit.
        from PIL import Image

        picture = Image.fromarray(image.numpy()).resize(size[::-1], Image.Resampling.BILINEAR)
        return torch.from_numpy(np.array(picture)).permute(2, 0, 1).float()
    pixels = image.permute(2, 0, 1)[None].float()
    return F.interpolate(pixels, size, mode='bilinear', antialias=True)[0].round()
