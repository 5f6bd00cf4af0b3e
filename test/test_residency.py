# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""On a GPU a batch is copied back once, and nothing is asked of the device before that."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from ood_perception import Pipeline, Profile
from ood_perception.clustering import streaming_kmeans
from ood_perception.frames.colour import RawFrame
from ood_perception.masks import MASK_MODELS, boxes, components
from ood_perception.masks.sam import SamMaskModel
from ood_perception.models import create_model, dcnv3, efficientnet_lite
from ood_perception.models.heads import fold
from ood_perception.profile import StageConfig, profile_names

from fake_gpu import fake_gpu
from small_models import SMALL, SmallSegmentor, tiny_sam

pytestmark = pytest.mark.fake_cuda

CUDA = torch.device('cuda')
EVERYTHING = {'score', 'heatmap', 'instances', 'semantic'}
CALLS = [((0, 1, 2), EVERYTHING), ((0,), {'heatmap'}), ((0,), {'instances'})]
"""Which frames come together, and what is wanted of them."""

ALIKE = ('compact_fast', 'compact_free')
"""Profiles that differ from `compact` in what is not looked at here."""


def small(name: str) -> Profile:
    """A shipped profile with random weights, a small network and small frames."""
    profile = Profile.load(name)
    options = {**profile.segmentor.options, **SMALL.get(name, {})}
    if profile.segmentor.name == 'compact':
        options['pretrained'] = False
    rcnn = profile.prompts.name == 'faster_rcnn'
    prompts = StageConfig(profile.prompts.name, '', {'slots': 4} if rcnn else {})
    return dataclasses.replace(
        profile,
        image=dataclasses.replace(profile.image, short_side=56, max_long_side=112),
        segmentor=StageConfig(profile.segmentor.name, '', options),
        prompts=prompts,
    )


def frames() -> list[Any]:
    """Three frames of two sizes, one of them as a camera sends it."""
    rng = np.random.default_rng(0)
    pictures = [rng.integers(0, 256, (h, 150, 3), np.uint8) for h in (90, 120)]
    return [*pictures, RawFrame(rng.integers(0, 256, 120 * 300, np.uint8), 120, 150, 300, 'yuyv')]


def check(
    profile: Profile,
    monkeypatch: pytest.MonkeyPatch,
    segmentor: nn.Module | None = None,
    calls: Any = CALLS,
) -> None:
    """Run a profile on a pretended GPU and count what travels."""
    # A kernel of Triton cannot be pretended; it asks nothing of the device.
    plain = [each for each in dcnv3.IMPLEMENTATIONS if each.name != 'triton']
    monkeypatch.setattr(dcnv3, 'IMPLEMENTATIONS', plain)
    # One round asks as much as all of them, one block as several, one point as nine.
    monkeypatch.setattr(boxes, 'STEPS', 1)
    monkeypatch.setattr(components, 'ROUNDS', 1)
    for name in ('STARTS', 'START_ITERATIONS', 'START_MOVES'):
        monkeypatch.setattr(streaming_kmeans, name, 1)
    monkeypatch.setattr(dcnv3, 'POINTS', dcnv3.POINTS[:1])
    shallow = tuple((*stage[:4], 1) for stage in efficientnet_lite.STAGES)
    monkeypatch.setattr(efficientnet_lite, 'STAGES', shallow)
    if profile.mask_model.name.startswith('sam'):
        pytest.importorskip('segment_anything', reason='needs segment-anything')
    if profile.prompts.name == 'faster_rcnn':
        resnet = pytest.importorskip('torchvision.models.resnet')
        from ood_perception.models import faster_rcnn

        def resnet8(weights: None, **options: Any) -> nn.Module:
            return resnet.ResNet(resnet.Bottleneck, [1, 1, 1, 1], **options)

        monkeypatch.setattr(faster_rcnn, 'resnet50', resnet8)
    monkeypatch.setitem(
        MASK_MODELS,
        'sam_vit_b',
        lambda weights, **options: SamMaskModel(tiny_sam(layers=1), **options),
    )
    if segmentor is None:
        segmentor = fold(create_model(profile.segmentor.name, **profile.segmentor.options))
    with fake_gpu(monkeypatch) as gpu:
        pipeline = Pipeline(profile, segmentor, CUDA, 'eager')
        pipeline([frames()[i] for i in calls[0][0]])
        # A flag of each stream, copied without waiting, says whether its scene was cut.
        flags = profile.score.name == 'clusters'
        for which, wants in calls:
            gpu.clear()
            some = [frames()[i] for i in which]
            batches = len({pipeline.network_size(*f.shape[:2]) for f in some})
            assert len(pipeline(some, wants=wants)) == len(some)
            assert len(gpu.waits) == batches, '\n'.join(gpu.waits)
            assert len(gpu.downloads) == batches + flags * len(some), '\n'.join(gpu.downloads)
            assert len(gpu.uploads) == len(some), '\n'.join(gpu.uploads)
        assert not pipeline.notes


@pytest.mark.slow
@pytest.mark.parametrize(
    'name', [name for name in profile_names() if name not in ('compact', *ALIKE)]
)
def test_profiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(small(name), monkeypatch)


@pytest.mark.slow
def test_compact(monkeypatch: pytest.MonkeyPatch) -> None:
    check(small('compact'), monkeypatch)


def test_other_stages_behind_a_small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other prompts, masks and scores; the large networks before them take longest here."""
    profile = small('internimage_clusters')
    check(profile, monkeypatch, SmallSegmentor(), calls=[((1, 2), EVERYTHING)])


def test_a_score_detector(monkeypatch: pytest.MonkeyPatch) -> None:
    profile = dataclasses.replace(small('compact'), prompts=StageConfig('score_detector'))
    check(profile, monkeypatch, SmallSegmentor(), calls=[((1, 2), EVERYTHING)])
