# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of the detection head on the maps of a frozen backbone.

The backbone's maps of every scene are computed once, in some variants (mirrored, scaled, shifted,
recoloured, as `prompts.example` does), and kept on disk; the head then learns from parts of them.
Loss and calibration are those of the light prompts.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import Dataset

from ood_perception.building import load_segmentor
from ood_perception.engines import create_engine
from ood_perception.frames.transfer import normalise
from ood_perception.masks import create_prompts
from ood_perception.models.detection_head import STRIDE, DetectionHead
from ood_perception.profile import Profile
from research.prompts import calibrate, detection_loss, example, split
from research.score_scenes import Scene
from research.small_networks import start_from, train_small

PROPOSED = 0.3
"""Confidence from which a box is one to learn outlines from."""
VARIANTS = 2
"""Times that each scene is drawn anew."""
PART = (288, 384)
"""Height and width in pixels of the parts that are learnt from."""
COARSEST = 32
"""Stride in pixels of the coarsest map: a part begins at a multiple of it."""
STRIDES = (2, 4, 8, 16, 32, STRIDE)
"""Stride of each record: log-odds, the backbone's maps, what is wanted."""


class Backbone:
    """The features of a profile's segmentor, of one image at a time."""

    def __init__(self, profile: str) -> None:
        segmentor, device = load_segmentor(Profile.load(profile)), torch.device('cpu')
        self._spec: Any = segmentor.spec
        self._engine = create_engine('openvino', segmentor, device)

    @torch.inference_mode()
    def __call__(self, image: Tensor) -> list[Tensor]:
        """Map uint8 (3, H, W) RGB to maps float32 (1, C, h, w), finest first."""
        return self._engine(normalise(image[None], self._spec, False)).features


def picture_of(planes: Tensor) -> Tensor:
    """Undo `detector_input`: float32 (4, H, W) -> the picture, uint8 (3, H, W) RGB."""
    return ((planes[:3] + 2) * 64).round().to(torch.uint8)


def odds_of(planes: Tensor) -> Tensor:
    """Log-odds of `detector_input` (B, 4, H, W) -> of the head (B, 1, H / 2, W / 2)."""
    return F.avg_pool2d(planes[:, 3:], STRIDES[0])


class Records(Dataset):
    """
    Parts of recorded scenes as a function of (seed, epoch, index), mirrored half of the time.

    Args:
        scenes: of one size, whose sides are multiples of 16.
        backbone: of the maps.
        folder: to keep the records in, 1.8 MB a variant of a scene of 576x432.
        seed: of all chance.

    """

    def __init__(
        self, scenes: Sequence[Scene], backbone: Backbone, folder: Path, seed: int
    ) -> None:
        self.seed, self.size = seed, scenes[0].labels.shape
        self._shapes: list[torch.Size] = []
        self._rows: Any = None
        for index in range(VARIANTS * len(scenes)):
            rng = np.random.default_rng((seed, index))
            planes, *wanted = example(scenes[index % len(scenes)], rng, self.size)
            maps = backbone(picture_of(planes))
            heat, sides, weight, asked = wanted
            together = torch.cat([heat[None], sides, weight[None], asked[None]])
            record = [odds_of(planes[None])[0], *(x[0] for x in maps), together]
            if self._rows is None:
                self._shapes = [x.shape for x in record]
                length = sum(x.numel() for x in record)
                shape = (VARIANTS * len(scenes), length)
                kind: Any = np.float16
                path = folder / 'records.npy'
                self._rows = np.lib.format.open_memmap(path, 'w+', kind, shape)
            self._rows[index] = torch.cat([x.flatten() for x in record]).numpy()

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Any]:
        """Return one example: 'input' of the head, 'wanted' as `prompts.targets` gives it."""
        rng = np.random.default_rng((self.seed, *key))
        row = torch.from_numpy(self._rows[key[1]].copy()).float()
        parts = row.split([math.prod(shape) for shape in self._shapes])
        maps = [part.view(shape) for part, shape in zip(parts, self._shapes, strict=True)]
        if rng.random() < 0.5:
            maps = [x.flip(2) for x in maps]
            maps[-1] = maps[-1][[0, 3, 2, 1, 4, 5, 6]]  # left and right change places
        top, left = (
            COARSEST * int(rng.integers(max(0, side - part) // COARSEST + 1))
            for side, part in zip(self.size, PART, strict=True)
        )
        bottom, right = top + PART[0], left + PART[1]
        odds, *features, wanted = (
            x[:, top // stride : bottom // stride, left // stride : right // stride]
            for x, stride in zip(maps, STRIDES, strict=True)
        )
        odds = odds + float(rng.normal(0, 0.05))
        together = [wanted[0], wanted[1:5], wanted[5], wanted[6]]
        return {'input': [odds, *features], 'wanted': together, 'name': f'record {key}'}


class OnPlanes(nn.Module):
    """A head as `prompts.calibrate` and the validation run detectors: on `detector_input`."""

    def __init__(self, head: DetectionHead, backbone: Backbone) -> None:
        super().__init__()
        self.network, self._backbone, self.head = head, backbone, head.head

    def forward(self, planes: Tensor) -> Tensor:
        """(1, 4, H, W) -> (1, 5, H / 4, W / 4)."""
        found: Tensor = self.network(odds_of(planes), *self._backbone(picture_of(planes[0])))
        return found


def detecting_prompts(profile: str, head: str, **options: Any) -> Any:
    """Prompts of a detection head that see pictures and probabilities; '' = the package's head."""
    prompts: Any = create_prompts('score_detector', weights='', **options)
    weights = {'weights': head} if head else {}
    network: Any = create_prompts('detection_head', **weights)
    prompts.network = OnPlanes(network.head, Backbone(profile))
    return prompts


def proposed(scenes: Sequence[Scene], profile: str, head: Path | None) -> Sequence[Scene]:
    """
    Scenes with the boxes that their outlines will be asked of, where a detection head finds those.

    Args:
        scenes: of any sizes.
        profile: whose boxes they are.
        head: weights of its detection head, None = its own.
    """
    stage = Profile.load(profile).prompts
    if stage.name != 'detection_head':
        return scenes
    prompts = detecting_prompts(profile, str(head or stage.weights), threshold=PROPOSED)
    found = []
    for scene in scenes:
        image = torch.from_numpy(scene.image).permute(2, 0, 1)[None]
        probability = torch.from_numpy(scene.probability).float()[None]
        boxes = prompts(image, probability, probability)
        found.append(replace(scene, proposals=boxes.boxes[0][boxes.valid[0]].numpy()))
    return found


def train_detection_head(
    scenes: Sequence[Scene],
    output: Path,
    steps: int = 6000,
    batch: int = 6,
    learning_rate: float = 3e-3,
    seed: int = 0,
    start: Path | None = None,
    profile: str = 'compact',
) -> DetectionHead:
    """
    Train the detection head and save it as safetensors.

    Args:
        scenes: of one size, whose sides are multiples of 16.
        output: and all up to `start` as of `prompts.train_prompts`; a batch is of parts of scenes.
        steps: see there.
        batch: see there.
        learning_rate: see there.
        seed: see there.
        start: see there.
        profile: whose segmentor has the backbone.

    Returns:
        The head in evaluation mode.

    Raises:
        TrainingError: weights that cannot be read or written, or a loss that is not a number.
        ProfileError: the profile cannot be read, or its weights are missing.

    """
    torch.manual_seed(seed)
    head, backbone = DetectionHead(), Backbone(profile)
    start_from(head, start)
    learnt, kept = split(scenes, np.random.default_rng(seed))
    with tempfile.TemporaryDirectory() as folder:
        train_small(
            head,
            Records(learnt, backbone, Path(folder), seed),  # type: ignore[arg-type]
            detection_loss,
            output,
            steps,
            batch,
            learning_rate,
            seed,
            finish=lambda: calibrate(OnPlanes(head, backbone), kept),
        )
    return head
