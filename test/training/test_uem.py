# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training of the UEM on small models of every family: what is trained, and the loss."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.utils.data import default_collate

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.labels import truth_of
from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.logits import LikelihoodRatio
from ood_training.checkpointing import TrainingError
from ood_training.parts import normalise
from ood_training.presets import PRESETS, find_preset, override
from ood_training.trainer import Trainer
from ood_training.uem import UemTask, Validation, llr_loss

from training_samples import MODELS, SETTINGS, Squares, changed, model, stage, state

USER_MODELS = [name for name in MODELS if name != 'uem_gg']


@pytest.mark.parametrize('name', MODELS)
def test_parts_give_what_the_model_gives(name):
    parts = model(name)
    images = normalise(Squares()[(0, 0)]['image'][None], parts.spec)
    with torch.no_grad():
        out = parts.model(images)
        maps = parts.features(images)
        if parts.logits is not None:
            torch.testing.assert_close(parts.logits(maps), out.logits)
        torch.testing.assert_close(parts.ood(maps), out.ood)


@pytest.mark.parametrize('name', USER_MODELS)
def test_stage_2_trains_the_uem_only(name, tmp_path):
    parts = model(name)
    before = state(parts)
    task = UemTask(parts, stage())
    Trainer(task, Squares(), SETTINGS, tmp_path).fit()
    moved = changed(before, state(parts))
    assert moved
    assert all(k.startswith(parts.prefixes(parts.uem)) for k in moved)
    assert not {k for k in moved if k.endswith(('dw.1.bias', 'mid.bias', 'low.bias'))}
    task.train()
    frozen = [m for part in parts.decoder for m in part.modules()]
    assert not any(m.training for m in frozen)


def test_stage_2_loss_is_the_likelihood_ratio_loss():
    parts = model('uem_dd')
    task = UemTask(parts, stage(unknown_weight=3.0))
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    with torch.no_grad():
        maps = task.features(batch)
        llr = LikelihoodRatio()(
            SegmentorOutput(logits=parts.logits(maps), ood=parts.ood(maps)), (56, 56)
        )[0]
        label = batch['label'][0]
        unknown = torch.nn.functional.softplus(-llr[label == 254]).sum()
        known = torch.nn.functional.softplus(llr[label < 254]).sum()
        total = 3 * (label == 254).sum() + (label < 254).sum()
        assert task(batch)['loss'].item() == pytest.approx(
            ((3 * unknown + known) / total).item(), rel=1e-5
        )
        assert task.weigh(batch).item() == total
    # The gradient comes through the ratio alone; none reaches the segmentor.
    task(batch)['loss'].backward()
    assert all(p.grad is not None and p.grad.any() for p in parts.uem[1].parameters())
    assert all(p.grad is None for part in parts.decoder for p in part.parameters())


def test_the_loss_is_that_of_the_score_of_the_profile():
    parts = model('compact')
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    target = truth_of(batch['label'])
    with torch.no_grad():
        output = parts.model(normalise(batch['image'], parts.spec))
        for exact in (True, False):
            task = UemTask(parts, stage(exact=exact))
            llr = LikelihoodRatio(exact)(output, target.shape[1:])
            wanted = llr_loss(llr, target)
            assert task(batch)['loss'].item() == pytest.approx(wanted.item(), rel=1e-4)


def test_small_unknown_objects_weigh_more_where_asked_for():
    parts = model('compact')
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    label = batch['label'].fill_(0)
    label[:, 4:8, 4:8] = 254  # 16 pixels of 64: weight 2
    label[:, 20:40, 20:40] = 254  # larger: weight 1
    task = UemTask(parts, stage(unknown_weight=3, object_area=64))
    known = label.numel() - 16 - 400
    assert task.weigh(dict(batch)).item() == known + 3 * (2 * 16 + 400)
    factors = torch.ones(label.shape)
    factors[:, 4:8, 4:8] = 2
    plain = UemTask(parts, stage(unknown_weight=3))
    with torch.no_grad():
        assert task(batch)['loss'].item() != pytest.approx(plain(batch)['loss'].item(), rel=1e-3)
        maps, target = task.features(batch), truth_of(task.label(batch))
        output = SegmentorOutput(logits=parts.logits(maps), ood=parts.ood(maps))
        llr = LikelihoodRatio()(output, target.shape[1:])
        wanted = llr_loss(llr, target, unknown_weight=3, pixel_weight=factors)
        assert task(batch)['loss'].item() == pytest.approx(wanted.item(), rel=1e-5)


def test_a_uem_learns_the_white_square(tmp_path):
    parts = model('compact')
    settings = dataclasses.replace(SETTINGS, steps=25, lr=5e-3, monitor='ap')
    validation = Validation(Squares(), limit=4, stride=1)
    with torch.inference_mode():
        before = validation(parts)
    task = UemTask(parts, stage(), validation)
    after = Trainer(task, Squares(), settings, tmp_path).fit()
    assert after['ap'] > max(before['ap'] + 0.2, 0.6)
    assert set(after) >= {'ap', 'fpr95', 'auroc'}


def test_overrides():
    changed_stage = override(
        PRESETS['dinov2'].uem,
        ['lr=1e-3', 'steps=7', 'unknown_weight=2', 'options.share=0.5'],
    )
    assert changed_stage.trainer.lr == 1e-3
    assert changed_stage.trainer.steps == 7
    assert changed_stage.unknown_weight == 2.0
    assert changed_stage.options == {'size': [518, 1036], 'share': 0.5}
    assert PRESETS['dinov2'].uem.trainer.steps == 4000


@pytest.mark.parametrize(
    ('change', 'message'),
    [
        ('step=5', "did you mean 'steps'"),
        ('steps=many', "expected int, got 'many'"),
        ('steps', 'expected key=value'),
        ('steps=0', 'steps: expected 1 or more'),
    ],
)
def test_wrong_overrides_are_named(change, message):
    with pytest.raises(TrainingError, match=message):
        override(PRESETS['dinov2'].uem, [change])
    with pytest.raises(TrainingError, match='no preset named'):
        find_preset('uem_gd')


def test_the_loading_process_makes_the_targets():
    parts = model('compact')
    options = {'unknown_weight': 3, 'object_area': 400}
    task = UemTask(parts, stage(**options))
    samples = [Squares()[(0, 1)], Squares()[(0, 2)]]
    made, raw = task.collate(samples), default_collate(samples)
    assert set(made) - set(raw) == {'target', 'pixel_weight', 'weight'}
    assert task.weigh(made).item() == task.weigh(raw).item()
    with torch.no_grad():
        assert task(made)['loss'].item() == task(raw)['loss'].item()
    assert 'target' not in raw  # a batch is not changed by what it is asked
    made['weight'].fill_(7)
    assert task.weigh(made).item() == 7  # it is not made again
