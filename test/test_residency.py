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
from ood_perception.frames.colour import RawFrame
from ood_perception.masks import MASK_MODELS, boxes, components
from ood_perception.masks.sam import SamMaskModel
from ood_perception.models import create_model, dcnv3
from ood_perception.profile import StageConfig, profile_names

from fake_gpu import fake_gpu
from small_models import SMALL, SmallSegmentor, tiny_sam

pytestmark = [pytest.mark.fake_cuda, pytest.mark.slow]

CUDA = torch.device('cuda')
EVERYTHING = {'score', 'heatmap', 'instances', 'semantic'}
CALLS = [(4, EVERYTHING), (1, {'instances'}), (1, {'heatmap'})]
"""Frames that come together, and what is wanted of them."""


def small(name: str) -> Profile:
    """A shipped profile with random weights, a small network and small frames."""
    profile = Profile.load(name)
    options = {**profile.segmentor.options, **SMALL.get(name, {})}
    return dataclasses.replace(
        profile,
        image=dataclasses.replace(profile.image, short_side=56, max_long_side=112),
        segmentor=StageConfig(profile.segmentor.name, '', options),
        prompts=dataclasses.replace(profile.prompts, weights=''),
    )


def frames(count: int) -> list[Any]:
    """Frames of two sizes, the first as a camera sends it."""
    rng = np.random.default_rng(0)
    raw = RawFrame(rng.integers(0, 256, 90 * 300, np.uint8), 90, 150, 300, 'yuyv')
    sizes = [(90, 150), (120, 150)]
    pictures = [rng.integers(0, 256, (*sizes[i % 2], 3), np.uint8) for i in range(count)]
    return [raw, *pictures[1:]]


def check(profile: Profile, segmentor: nn.Module, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run a profile on a pretended GPU and count what travels."""
    # A kernel of Triton cannot be pretended; it asks nothing of the device.
    plain = [each for each in dcnv3.IMPLEMENTATIONS if each.name != 'triton']
    monkeypatch.setattr(dcnv3, 'IMPLEMENTATIONS', plain)
    # One round asks as much as all of them.
    monkeypatch.setattr(boxes, 'STEPS', 1)
    monkeypatch.setattr(components, 'ROUNDS', 1)
    monkeypatch.setitem(MASK_MODELS, 'sam_vit_b', lambda weights: SamMaskModel(tiny_sam()))
    with fake_gpu(monkeypatch) as gpu:
        pipeline = Pipeline(profile, segmentor, CUDA, 'eager')
        pipeline(frames(4))
        # A flag of each stream, copied without waiting, says whether its scene was cut.
        flags = profile.score.name == 'clusters'
        for count, wants in CALLS:
            gpu.clear()
            batches = len({pipeline.network_size(*f.shape[:2]) for f in frames(count)})
            assert len(pipeline(frames(count), wants=wants)) == count
            assert len(gpu.waits) == batches, '\n'.join(gpu.waits)
            assert len(gpu.downloads) == batches + flags * count, '\n'.join(gpu.downloads)
            assert len(gpu.uploads) == count, '\n'.join(gpu.uploads)
        assert not pipeline.notes


@pytest.mark.parametrize('name', profile_names())
def test_profiles(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    profile = small(name)
    if profile.mask_model.name.startswith('sam'):
        pytest.importorskip('segment_anything', reason='needs segment-anything')
    segmentor = create_model(profile.segmentor.name, **profile.segmentor.options)
    check(profile, segmentor, monkeypatch)


def test_a_small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    check(small('compact'), SmallSegmentor(), monkeypatch)
