# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The detector of S2M: boxes around unknown objects, found in a score map.

Paper: Zhao et al., "Segment Every Out-of-Distribution Object" (S2M), CVPR 2024. It is detectron2's
Faster R-CNN R50-FPN with two classes, rebuilt from torchvision's parts: where the two libraries
compute different numbers, detectron2's way is taken here, and only there.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models import resnet50
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FrozenBatchNorm2d, roi_align

PIXEL_MEAN = (103.53, 116.28, 123.675)  # of the raw score map, thrice: S2M does not rescale it
STRIDES = (4, 8, 16, 32, 64)  # pixels per cell of p2 .. p6
CLASSES = 2  # foreground classes; both name an unknown object, and both are used


class FixedAnchors(AnchorGenerator):
    """detectron2's anchors: not rounded, and at fixed strides."""

    def __init__(self) -> None:
        sizes = tuple((32 * 2**i,) for i in range(len(STRIDES)))
        super().__init__(sizes, ((0.5, 1.0, 2.0),) * len(STRIDES))

    def generate_anchors(
        self,
        scales: Sequence[int],
        aspect_ratios: Sequence[float],
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
    ) -> Tensor:
        """Anchors (N, 4) XYXY around the origin, ratio = height / width."""
        sides = [(s / r**0.5, s * r**0.5) for s in scales for r in aspect_ratios]
        corners = [[-w / 2, -h / 2, w / 2, h / 2] for w, h in sides]
        return torch.tensor(corners, dtype=dtype, device=device)

    def of_levels(self, feature_maps: Sequence[Tensor]) -> list[Tensor]:
        """Anchors (A, 4) of each level."""
        first = feature_maps[0]
        self.set_cell_anchors(first.dtype, first.device)
        sizes = [list(maps.shape[-2:]) for maps in feature_maps]
        # Numbers of Python: tensors of them would be sent to the device at each call.
        levels: list[Tensor] = self.grid_anchors(sizes, [[s, s] for s in STRIDES])
        return levels

    def forward(self, image_list: ImageList, feature_maps: list[Tensor]) -> list[Tensor]:
        """Anchors (A, 4) of each image, level by level."""
        return [torch.cat(self.of_levels(feature_maps))] * len(image_list.image_sizes)


def level_of(boxes: Tensor) -> Tensor:
    """Which of p2 .. p5, as 0 .. 3, each box (N, 4) is read from, by its area."""
    area = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    return torch.floor(4 + torch.log2(area.sqrt() / 224 + 1e-8)).clamp(2, 5).long() - 2


def pool(feature: Tensor, rois: Tensor, size: int, level: int) -> Tensor:
    """Pool boxes (N, 5) of image and XYXY from one level, by detectron2's ROIAlignV2."""
    rois = rois.to(feature.dtype)
    return roi_align(feature, rois, size, 1 / STRIDES[level], sampling_ratio=-1, aligned=True)


class AlignedPooler(nn.Module):
    """`pool` over p2 .. p5, level by box area."""

    def __init__(self, size: int = 7) -> None:
        super().__init__()
        self.size = size

    def forward(
        self, features: dict[str, Tensor], boxes: list[Tensor], image_shapes: list[tuple[int, int]]
    ) -> Tensor:
        """Pool (N, 4) XYXY boxes of each image into (sum of N, C, size, size)."""
        maps = list(features.values())[:4]
        index = torch.cat([b.new_full((len(b), 1), i) for i, b in enumerate(boxes)])
        flat = torch.cat(boxes)
        levels = level_of(flat)
        rois = torch.cat([index, flat], dim=1)
        out = maps[0].new_zeros(len(flat), maps[0].shape[1], self.size, self.size)
        for level, feature in enumerate(maps):
            chosen = torch.where(levels == level)[0]
            out[chosen] = pool(feature, rois[chosen], self.size, level)
        return out


def resnet_fpn() -> BackboneWithFPN:
    """ResNet-50 with frozen batch norm and the stride in the 1x1 convolutions; p2 .. p6."""
    body = resnet50(weights=None, norm_layer=FrozenBatchNorm2d)
    for layer in (body.layer2, body.layer3, body.layer4):
        # The original (MSRA) ResNet, unlike torchvision's, which strides in conv2.
        layer[0].conv1.stride, layer[0].conv2.stride = (2, 2), (1, 1)
    stages = {f'layer{i + 1}': str(i) for i in range(4)}
    return BackboneWithFPN(body, stages, [256, 512, 1024, 2048], 256)


class PromptRCNN(nn.Module):
    """
    Boxes around unknown objects in raw score maps.

    Detections below `score_threshold` (confidence) are dropped, and of two boxes of one class with
    an IoU above `nms_threshold` the weaker.
    """

    def __init__(
        self, score_threshold: float = 0.05, nms_threshold: float = 0.5, max_boxes: int = 100
    ) -> None:
        super().__init__()
        self.backbone = resnet_fpn()
        channels = self.backbone.out_channels
        self.rpn = RegionProposalNetwork(
            FixedAnchors(),
            RPNHead(channels, 3),
            fg_iou_thresh=0.7,
            bg_iou_thresh=0.3,
            batch_size_per_image=256,
            positive_fraction=0.5,
            pre_nms_top_n={'training': 2000, 'testing': 1000},
            post_nms_top_n={'training': 1000, 'testing': 1000},
            nms_thresh=0.7,
        )
        self.roi_heads = RoIHeads(
            AlignedPooler(),
            TwoMLPHead(channels * 7**2, 1024),
            FastRCNNPredictor(1024, CLASSES + 1),
            fg_iou_thresh=0.5,
            bg_iou_thresh=0.5,
            batch_size_per_image=512,
            positive_fraction=0.25,
            bbox_reg_weights=None,  # (10, 10, 5, 5), the same in both libraries
            score_thresh=score_threshold,
            nms_thresh=nms_threshold,
            detections_per_img=max_boxes,
        )

    def features(self, scores: Tensor) -> dict[str, Tensor]:
        """Maps p2 .. p6 of raw score maps (B, H, W). Raises ValueError for another shape."""
        if scores.ndim != 3:
            raise ValueError(f'expected score maps (B, H, W), got {tuple(scores.shape)}')
        height, width = scores.shape[1:]
        images = torch.stack([scores.float() - mean for mean in PIXEL_MEAN], 1)
        # The padding is zero after the mean is taken away, as in detectron2.
        images = F.pad(images, (0, -width % 32, 0, -height % 32))
        return self.backbone(images.to(self.rpn.head.cls_logits.weight.dtype))  # type: ignore[no-any-return]

    def forward(
        self, scores: Tensor, targets: list[dict[str, Tensor]] | None = None
    ) -> list[dict[str, Tensor]] | dict[str, Tensor]:
        """
        Detect in float (B, H, W) raw score maps, higher = more unknown.

        They are not rescaled: S2M was trained on the negative log-sum-exp of class logits, roughly
        -30 .. 5. In evaluation there comes one dict a map: boxes float (N, 4) XYXY pixels, scores
        float (N,) in decreasing order, labels int64 (N,) 1 or 2. In training, with targets of one
        dict a map, `boxes` and `labels`, the losses come by name.
        """
        features = self.features(scores)
        sizes = [(int(scores.shape[1]), int(scores.shape[2]))] * len(scores)
        batch = ImageList(scores, sizes)
        proposals, rpn_losses = self.rpn(batch, features, targets)
        found, losses = self.roi_heads(features, proposals, batch.image_sizes, targets)
        return {**rpn_losses, **losses} if self.training else found
