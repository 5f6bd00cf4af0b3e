# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""From a profile to the stages of a pipeline: networks with their weights, on a device."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import logging
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.checkpoints import load_checkpoint
from ood_perception.checkpoints.store import WeightsMissing, resolve, sha256_of
from ood_perception.engines.small import SmallEngine
from ood_perception.frames.transfer import network_size
from ood_perception.host_cpu import has_bfloat16_tiles
from ood_perception.masks.detection_prompts import DetectionHeadPrompts
from ood_perception.models import create_model
from ood_perception.models.detection_head import DetectingSegmentor
from ood_perception.models.heads import fold
from ood_perception.models.int8 import quantised
from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.models.unet import SmallNetwork
from ood_perception.profile import CalibrationConfig, Profile, ProfileError, StageConfig
from ood_perception.scores import ScoreModule, learns
from ood_perception.scores.logits import coarse_ratio

log = logging.getLogger(__name__)

TRAINED_ON = CalibrationConfig('platt', 0.6994, -1.5502)
"""Calibration of the likelihood ratio that the shipped detection head has learnt from."""


def compile_parts(stage: Any, live: bool, int8: bool = False) -> None:
    """Put the small networks of a stage behind OpenVINO, where it is installed; or their int8."""
    if importlib.util.find_spec('openvino') is None:
        return
    for name, part in list(stage.named_children()):
        if isinstance(part, SmallNetwork):
            tiles = has_bfloat16_tiles()
            form = quantised(part, part.ranges) if int8 and part.ranges and not tiles else None
            setattr(stage, name, SmallEngine(part, part.rounds and tiles, live, form))


def load_segmentor(profile: Profile) -> nn.Module:
    """Build the segmentor of a profile with its weights. Raises ProfileError."""
    segmentor: nn.Module = create_stage(
        'segmentor', create_model, profile.segmentor, weights=False
    )
    if profile.segmentor.weights:
        try:
            report = load_checkpoint(segmentor, resolve(profile.segmentor.weights))
        except (OSError, ValueError) as error:
            raise ProfileError(f'segmentor.weights: {error}') from error
        log.info('%s: %s', profile.segmentor.name, report)
    return fold(segmentor)


class LogOdds(nn.Module):
    """
    From a segmentor's output to the log-odds that a detection head sees.

    Args:
        slope: of the calibration of the likelihood ratio, 1 / nats.
        offset: of the same.

    """

    slope: Tensor
    offset: Tensor

    def __init__(self, slope: float, offset: float) -> None:
        super().__init__()
        self.register_buffer('slope', torch.tensor(slope))
        self.register_buffer('offset', torch.tensor(offset))

    def forward(self, output: SegmentorOutput) -> Tensor:
        """Logits and UEM outputs -> float32 (B, 1, h, w) of the UEM's size, within -2..2."""
        odds = self.slope * coarse_ratio(output) + self.offset
        return (odds / 4).clamp(-2, 2)[:, None]


def detecting(segmentor: nn.Module, prompts: Any, profile: Profile) -> nn.Module:
    """
    Make the detection head of the prompts, where they have one, a part of the segmentor.

    The head sees the likelihood ratio whatever score the profile names, calibrated as there, or as
    in the profile that it was trained on where the calibration is no Platt scaling.

    Raises:
        ProfileError: the segmentor has not the maps that the head was made for.

    """
    if not isinstance(prompts, DetectionHeadPrompts):
        return segmentor
    head = prompts.head
    if getattr(segmentor, 'channels', None) != head.channels:
        raise ProfileError(
            f'prompts.name: detection_head was made for the maps of compact, the segmentor is '
            f'{profile.segmentor.name}; take score_detector'
        )
    calibration = profile.calibration if profile.calibration.kind == 'platt' else TRAINED_ON
    odds = LogOdds(calibration.slope, calibration.offset)
    return DetectingSegmentor(segmentor, head, odds).eval()


def model_identity(profile: Profile) -> str:
    """
    Name the segmentor of a profile and its weights, for what is learnt with it.

    The name, and the first 12 hex digits of the weight file's sha256 where there is one on this
    machine, for example 'compact 5f70bf18a086'.
    """
    name, weights = profile.segmentor.name, profile.segmentor.weights
    try:
        return f'{name} {sha256_of(resolve(weights))[:12]}' if weights else name
    except WeightsMissing:
        return name


def profile_identity(profile: Profile, score: ScoreModule) -> str:
    """Name a profile, a digest of what it says, :func:`model_identity`, what its score learnt."""
    # The engine is not named, of which `precision` is a part.
    rest = {'description': '', 'licence': '', 'precision': 'float32'}
    tree = json.dumps(profile.to_dict() | rest, sort_keys=True)
    digest = hashlib.sha256(tree.encode()).hexdigest()[:12]
    taught = f', {score.frames} frames of normal' if learns(score) else ''
    return f'{profile.name} {digest}, {model_identity(profile)}{taught}'


def image_size(profile: Profile, segmentor: nn.Module, height: int, width: int) -> tuple[int, int]:
    """Size (h, w) in pixels at which a frame of (height, width) pixels is processed."""
    spec: InputSpec = segmentor.spec  # type: ignore[assignment]
    image = profile.image
    return network_size(height, width, image.short_side, image.max_long_side, spec.multiple_of)


def choose_device(device: str) -> torch.device:
    """Turn 'auto', 'cpu', 'cuda' or 'cuda:N' into a device; ValueError where there is none."""
    if device == 'auto':
        return torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise ValueError(f'device: expected auto, cpu or cuda[:N], got {device!r}') from error
    if chosen.type == 'cuda' and not torch.cuda.is_available():
        raise ValueError(
            f'device: {device!r} asked for, but torch {torch.__version__} sees no GPU'
        )
    return chosen


def create_stage(key: str, create: Any, config: StageConfig, weights: bool = True) -> Any:
    """Call a registry's factory; what it refuses becomes a ProfileError with the key's path."""
    options = dict(config.options)
    if weights and config.weights:
        options['weights'] = config.weights
    try:
        return create(config.name, **options)
    except (TypeError, ValueError, OSError, ImportError) as error:
        raise ProfileError(f'{key} ({config.name}): {error}') from error
