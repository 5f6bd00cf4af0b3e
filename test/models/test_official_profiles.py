# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import dataclasses

import numpy as np
import pytest

from ood_perception.checkpoints.store import catalogue
from ood_perception.masks import MASK_MODELS, PROMPTS
from ood_perception.models import SEGMENTORS
from ood_perception.pipeline import Pipeline
from ood_perception.profile import Profile, ProfileError, StageConfig
from ood_perception.result import NO_CLASS
from ood_perception.scores import SCORES

from small_models import SMALL


def classes_of(profile: Profile) -> int:
    """Those of Cityscapes, and none where a memory of normal judges by features alone."""
    return 0 if profile.score.name == 'novelty' else 19


@pytest.mark.parametrize('name', SMALL)
def test_names_are_those_of_registries_and_catalogue(name):
    profile = Profile.load(name)
    assert profile.name == name
    assert profile.segmentor.name in SEGMENTORS
    assert profile.prompts.name in PROMPTS
    assert profile.mask_model.name in MASK_MODELS
    assert len(profile.classes) == classes_of(profile)
    for stage in (profile.segmentor, profile.prompts, profile.mask_model):
        shipped = stage.weights.startswith('package:') or stage.name == 'components'
        assert shipped or stage.weights in catalogue()
    assert catalogue()[profile.segmentor.weights].model == profile.segmentor.name


@pytest.mark.parametrize('name', SMALL)
def test_missing_weights_are_one_error_with_the_command(name, monkeypatch, tmp_path):
    monkeypatch.setenv('OOD_WEIGHTS', str(tmp_path))
    profile = Profile.load(name)
    options = {**profile.segmentor.options, **SMALL[name]}
    segmentor = dataclasses.replace(profile.segmentor, options=options)
    command = f'ood weights fetch {profile.segmentor.weights}'
    with pytest.raises(ProfileError, match=rf'^segmentor\.weights: .*{command}') as caught:
        Pipeline.from_profile(dataclasses.replace(profile, segmentor=segmentor), device='cpu')
    assert '\n' not in str(caught.value)


@pytest.mark.parametrize('mode', ['single', 'sliding'])
@pytest.mark.parametrize('name', SMALL)
def test_runs_end_to_end_with_random_weights(name, mode):
    profile = Profile.load(name)
    if profile.score.name not in SCORES:
        pytest.skip(f'no score named {profile.score.name} yet')
    options = {**profile.segmentor.options, **SMALL[name]}
    if name.startswith('dinov2'):
        options['mode'] = mode
    elif mode == 'sliding':
        return
    profile = dataclasses.replace(
        profile,
        image=dataclasses.replace(profile.image, short_side=56, max_long_side=112),
        segmentor=StageConfig(profile.segmentor.name, '', options),
        prompts=StageConfig('components'),
        mask_model=StageConfig('compact'),
    )
    pipeline = Pipeline.from_profile(profile, device='cpu', engine='eager')
    frames = [np.random.default_rng(i).integers(0, 256, (90, 150, 3), np.uint8) for i in range(2)]
    for result in pipeline(frames):
        assert result.score.shape == result.heatmap.shape == (90, 150)
        assert np.isfinite(result.score).all()
        assert result.semantic.max() < (classes_of(profile) or NO_CLASS + 1)
        assert result.instances.shape == (90, 150)
