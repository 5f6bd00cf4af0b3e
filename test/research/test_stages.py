# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Both stages on small models of every family: what is trained, what is frozen, the cache."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.models.registry import create_model
from ood_training.checkpointing import TrainingError
from ood_training.parts import normalise, split
from ood_training.trainer import Trainer
from research.cache import FeatureCache
from research.presets import PRESETS, PaperStage
from research.segmentor import class_numbers
from research.stages import make_task

from training_samples import DINO, MODELS, SETTINGS, Squares, changed, model, stage, state

pytestmark = pytest.mark.slow


def cache(folder: Path, **kwargs) -> FeatureCache:
    return FeatureCache(
        folder, Squares(), model('uem_dd'), **{'count': 9, 'batch_size': 4, **kwargs}
    )


@pytest.mark.parametrize('name', MODELS)
def test_stage_1_trains_decoder_and_head_only(name, tmp_path):
    parts = model(name)
    before = state(parts)
    task = make_task('segmentor', parts, stage(PaperStage))
    Trainer(task, Squares(), SETTINGS, tmp_path).fit()
    moved = changed(before, state(parts))
    own = parts.prefixes(parts.decoder)
    assert moved
    assert all(k.startswith(own) for k in moved)
    if any(k.endswith('segmentation_head.diagonal') for k in before):
        assert any(k.endswith('head.means') for k in moved)  # by memory, not by gradients
        assert any(k.endswith('head.feat_norm.weight') for k in moved)


@pytest.mark.parametrize('name', MODELS)
def test_stage_2_trains_the_uem_only(name, tmp_path):
    parts = model(name)
    before = state(parts)
    task = make_task('uem', parts, stage(PaperStage, alpha=0.5), None)
    Trainer(task, Squares(), SETTINGS, tmp_path).fit()
    moved = changed(before, state(parts))
    assert moved
    assert all(k.startswith(parts.prefixes(parts.uem)) for k in moved)
    assert not {k for k in moved if k.endswith(('dw.1.bias', 'mid.bias', 'low.bias'))}
    task.train()
    frozen = [m for part in parts.decoder for m in part.modules()]
    assert not any(m.training for m in frozen)


def test_paper_reproduces_the_drift_and_nothing_else(tmp_path):
    parts = model('uem_gd')
    before = state(parts)
    task = make_task('uem', parts, stage(PaperStage, paper=True))
    Trainer(task, Squares(), SETTINGS, tmp_path / 'a').fit()
    segmentor = {k for k in changed(before, state(parts)) if k.startswith('segmentor.')}
    assert segmentor
    assert all(
        k.rsplit('.', 1)[-1] in ('running_mean', 'running_var', 'num_batches_tracked')
        for k in segmentor
    )
    # A resumed run goes on with the drifted statistics.
    drifted = {k: v for k, v in state(parts).items() if k in segmentor}
    again = model('uem_gd')
    Trainer(
        make_task('uem', again, stage(PaperStage, paper=True)), Squares(), SETTINGS, tmp_path / 'a'
    )
    assert not changed(drifted, {k: v for k, v in state(again).items() if k in segmentor})


def test_a_bare_backbone_has_no_stage_1():
    bare = split(create_model('dinov2_vits14', **DINO))
    with pytest.raises(TrainingError, match='no class head'):
        make_task('segmentor', bare, stage(PaperStage))
    with pytest.raises(TrainingError, match='no UEM'):
        make_task('uem', bare, stage(PaperStage))
    with pytest.raises(TrainingError, match='cannot train a Linear'):
        split(torch.nn.Linear(1, 1))


def test_cached_features_are_those_of_the_backbone(tmp_path):
    cached = cache(tmp_path)
    sample = cached[(5, 3)]
    parts = model('uem_dd')
    from ood_training.data import StreamSampler

    key = [k for batch in StreamSampler(12, 1, 0, stop=9) for k in batch][3]
    source = Squares()[key]
    with torch.no_grad():
        maps = parts.features(normalise(source['image'][None], parts.spec))
    assert torch.equal(sample['label'], source['label'])
    for got, wanted in zip(sample['features'], maps, strict=True):
        torch.testing.assert_close(got.float(), wanted[0], rtol=1e-3, atol=1e-2)
    with torch.no_grad():
        task = make_task('uem', parts, stage(PaperStage))
        direct = task({'image': source['image'][None], 'label': source['label'][None]})['loss']
        batch = {'features': [m[None] for m in sample['features']], 'label': sample['label'][None]}
        assert task(batch)['loss'].item() == pytest.approx(direct.item(), rel=2e-2)


def test_an_interrupted_cache_is_completed(tmp_path):
    whole = cache(tmp_path / 'whole')
    cache(tmp_path / 'part', count=9)
    (tmp_path / 'part' / 'done').write_text('4')
    features = np.load(tmp_path / 'part' / 'features_0.npy', mmap_mode='r+')
    features[4:] = 0
    features.flush()
    part = cache(tmp_path / 'part')
    for i in range(9):
        assert torch.equal(part[(0, i)]['features'][0], whole[(0, i)]['features'][0])


def test_training_from_the_cache(tmp_path):
    parts = model('uem_dd')
    cached = FeatureCache(tmp_path / 'cache', Squares(), parts, 6)
    task = make_task('segmentor', parts, stage(PaperStage))
    Trainer(task, cached, SETTINGS, tmp_path / 'run').fit()


def test_a_foreign_or_too_large_cache_is_refused(tmp_path):
    cache(tmp_path)
    with pytest.raises(TrainingError, match='another count'):
        cache(tmp_path, count=5)
    with pytest.raises(TrainingError, match='another identity'):
        cache(tmp_path, identity='x')
    with pytest.raises(TrainingError, match=r'MB free, but this run needs about \d+ MB'):
        cache(tmp_path / 'new', count=10**9)


def test_presets_hold_the_papers_numbers():
    for name in ('uem_gd', 'uem_dd', 'uem_gg'):
        preset = PRESETS[name]
        assert preset.model == name
        assert preset.segmentor.trainer.steps == 90_000
        assert preset.uem.trainer.steps == 4000
        assert preset.uem.trainer.precision == 'bf16-mixed'
        assert preset.uem.alpha == (0.5 if name == 'uem_gg' else 0.0)
        for part in (preset.segmentor.trainer, preset.uem.trainer):
            assert (part.optimizer, part.lr, part.weight_decay) == ('adamw', 5e-4, 0)
            assert (part.warmup_steps, part.lr_end, part.seed) == (1500, 1e-7, 2000)
    prompts = PRESETS['s2m'].prompts.trainer
    assert (prompts.lr, prompts.momentum, prompts.weight_decay) == (0.0025, 0.9, 1e-4)
    assert (prompts.milestones, prompts.steps) == ((60_000, 80_000), 148_300)
    for preset in PRESETS.values():
        for part in (preset.segmentor, preset.uem, preset.prompts):
            part.trainer.check()


def test_class_numbers():
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    got = class_numbers(confusion)
    assert got['miou'] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert got['accuracy'] == pytest.approx(7 / 8)


@pytest.mark.parametrize('stride', [1, 2])
def test_specks_of_unknown_are_left_out_where_asked_for(stride):
    parts = model('compact')
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    label = batch['label'].fill_(0)
    label[:, 4:8, 4:8] = 254  # 16 pixels: left out
    label[:, 20:26, 20:24] = 254  # 24: not
    label[:, 40:44, 40:44] = 255
    options = {'unknown_weight': 3, 'object_area': 400, 'label_stride': stride}
    task = make_task('uem', parts, stage(PaperStage, object_least=20, **options))
    known = label.numel() - 16 - 24 - 16
    weighed = dict(batch)
    weight = 3 * 24 * min((400 / 24) ** 0.5, 4)
    assert task.weigh(weighed).item() == pytest.approx((known + weight) / stride**2)
    without = {**batch, 'label': label.clone()}
    without['label'][:, 4:8, 4:8] = 255
    plain = make_task('uem', parts, stage(PaperStage, **options))
    with torch.no_grad():
        wanted = plain(without)['loss'].item()
        assert plain(batch)['loss'].item() != pytest.approx(wanted, rel=1e-4)
        assert task(batch)['loss'].item() == pytest.approx(wanted, rel=1e-6)
        assert task(weighed)['loss'].item() == pytest.approx(wanted, rel=1e-6)
    assert (label == 254).sum() == 40  # the batch's own is as it was
