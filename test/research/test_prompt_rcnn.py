# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""S2M's detector learns from score maps; the command of the light generator."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.models.faster_rcnn import PromptRCNN
from ood_training.checkpointing import TrainingError, load_latest
from ood_training.trainer import Trainer
from research.presets import PRESETS
from research.prompt_rcnn import PromptTask, ScoreMaps, write_score_maps


@pytest.fixture
def maps(tmp_path):
    rng = np.random.default_rng(0)
    items = []
    for i in range(4):
        score, label = rng.normal(-10, 1, (70, 70)), np.zeros((70, 70), np.uint8)
        if i < 3:
            label[20:40, 10 : 40 + i] = 254
            score[20:40, 10 : 40 + i] = 2
        items.append((score, label))
    assert write_score_maps(tmp_path, items) == 3
    return tmp_path


def test_maps_are_scaled_flipped_and_noisy(maps):
    dataset = ScoreMaps(maps, size=140)
    boxes = set()
    for epoch in range(12):
        sample = dataset[(epoch, 0)]
        assert sample['score'].shape == (3, 140, 140)
        boxes.add(tuple(sample['box'].tolist()))
    assert boxes == {(20.0, 40.0, 80.0, 80.0), (60.0, 40.0, 120.0, 80.0)}
    score = dataset[(0, 0)]['score']
    ratio = score[0] / score[1]
    assert 0.979 < ratio.min() < 0.985  # independent in every pixel and channel
    assert 1.015 < ratio.max() < 1.021
    assert torch.equal(score, dataset[(0, 0)]['score'])


def test_one_step_trains_all_but_stem_and_res2(maps, tmp_path):
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = PromptRCNN()
    task = PromptTask(model)
    before = {k: v.clone() for k, v in model.named_parameters()}
    engine = dataclasses.replace(
        PRESETS['s2m'].prompts.trainer,
        steps=2,
        batch_size=1,
        warmup_steps=1,
        workers=0,
        accelerator='cpu',
        log_every=1,
    )
    Trainer(task, ScoreMaps(maps, 96), engine, tmp_path / 'run').fit()
    moved = {k for k, v in model.named_parameters() if not torch.equal(v, before[k])}
    assert 'roi_heads.box_predictor.cls_score.weight' in moved
    assert 'rpn.head.cls_logits.weight' in moved
    assert any('layer4' in k for k in moved)
    assert not any(k.startswith(('backbone.body.conv1', 'backbone.body.layer1')) for k in moved)
    assert load_latest(tmp_path / 'run')[0]['step'] == 2


def test_broken_maps_are_named(maps):
    (maps / 'scores' / '1.npz').write_bytes(b'no')
    with pytest.raises(TrainingError, match=r'1\.npz: cannot be read as a score map'):
        ScoreMaps(maps)[(0, 1)]
    (maps / 'scores' / '1.npz').unlink()
    with pytest.raises(TrainingError, match=r'1\.npz: missing'):
        ScoreMaps(maps)
    (maps / 'ood.json').write_text(json.dumps([]))
    with pytest.raises(TrainingError, match='lists no score map'):
        ScoreMaps(maps)
    (maps / 'ood.json').write_text('{')
    with pytest.raises(TrainingError, match='cannot be read as a list'):
        ScoreMaps(maps)
    with pytest.raises(TrainingError, match='no sample has an unknown'):
        write_score_maps(maps, [(np.zeros((4, 4)), np.zeros((4, 4), np.uint8))])
