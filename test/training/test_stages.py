# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Both stages on small models of every family: what is trained, what is frozen, the cache."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import Dataset, default_collate

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from ood_perception.models.registry import create_model
from ood_perception.scores.base import upsample
from ood_perception.scores.likelihood_ratio import LikelihoodRatio, log_likelihood_ratio
from ood_perception.training.cache import FeatureCache
from ood_perception.training.checkpointing import TrainingError
from ood_perception.training.engine import Trainer
from ood_perception.training.losses import llr_loss, ood_target
from ood_perception.training.parts import normalise, split
from ood_perception.training.presets import PRESETS, Stage, find_preset, override
from ood_perception.training.run import make_task
from ood_perception.training.settings import EngineSettings
from ood_perception.training.validation import Validation, class_numbers

DINO = {'embed_dim': 16, 'depth': 4, 'num_heads': 2, 'table_size': 56}
SMALL = {
    'num_classes': 4,
    'channels': 8,
    'mlp_hidden': 8,
    'projector_hidden': [8],
    'out_indices': [0, 1, 2, 3],
    **DINO,
}
MODELS = {
    'compact': {'classes': 4, 'pretrained': False},
    'uem_dd': SMALL,
    'uem_gd': SMALL,
    'uem_gg': SMALL,
}


class Squares(Dataset):
    """Four classes told by their colour, and a white unknown square."""

    def __len__(self) -> int:
        return 12

    def __getitem__(self, key: tuple[int, int]) -> dict:
        rng = np.random.default_rng(key)
        label = np.kron(rng.integers(0, 4, (2, 2)), np.ones((28, 28), int)).astype(np.uint8)
        image = np.stack([label * 40, 160 - label * 30, label * 10 + 20], -1)
        y, x = rng.integers(0, 40, 2)
        image[y : y + 14, x : x + 14] = 255
        label[y : y + 14, x : x + 14] = 254
        label[0] = 255
        return {
            'image': torch.from_numpy(image.astype(np.uint8).transpose(2, 0, 1).copy()),
            'label': torch.from_numpy(label.astype(np.int64)),
            'name': str(key),
        }


ENGINE = EngineSettings(
    steps=3, batch_size=2, lr=3e-3, schedule='constant', accelerator='cpu', checkpoint_every=100
)


def stage(**changes) -> Stage:
    engine = {k: changes.pop(k) for k in list(changes) if k in ENGINE.to_dict()}
    return Stage(dataclasses.replace(ENGINE, **engine), **changes)


def model(name: str):
    torch.manual_seed(0)
    torch.set_num_threads(1)
    return split(create_model(name, **MODELS[name]))


def state(parts) -> dict:
    return {k: v.clone() for k, v in parts.model.state_dict().items()}


def changed(before: dict, after: dict) -> set[str]:
    return {k for k in before if not torch.equal(before[k], after[k])}


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


@pytest.mark.parametrize('name', MODELS)
def test_stage_1_trains_decoder_and_head_only(name, tmp_path):
    parts = model(name)
    before = state(parts)
    task = make_task('segmentor', parts, stage())
    Trainer(task, Squares(), ENGINE, tmp_path).fit()
    moved = changed(before, state(parts))
    own = parts.prefixes(parts.decoder)
    assert moved
    assert all(k.startswith(own) for k in moved)
    if parts.class_head is not None and hasattr(parts.class_head, 'diagonal'):
        assert any(k.endswith('head.means') for k in moved)  # by memory, not by gradients
        assert any(k.endswith('head.feat_norm.weight') for k in moved)


@pytest.mark.parametrize('name', MODELS)
def test_stage_2_trains_the_uem_only(name, tmp_path):
    parts = model(name)
    before = state(parts)
    task = make_task('uem', parts, stage(alpha=0.5), None)
    Trainer(task, Squares(), ENGINE, tmp_path).fit()
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
    task = make_task('uem', parts, stage(paper=True))
    Trainer(task, Squares(), ENGINE, tmp_path / 'a').fit()
    segmentor = {k for k in changed(before, state(parts)) if k.startswith('segmentor.')}
    assert segmentor
    assert all(
        k.rsplit('.', 1)[-1] in ('running_mean', 'running_var', 'num_batches_tracked')
        for k in segmentor
    )
    # A resumed run goes on with the drifted statistics.
    drifted = {k: v for k, v in state(parts).items() if k in segmentor}
    again = model('uem_gd')
    Trainer(make_task('uem', again, stage(paper=True)), Squares(), ENGINE, tmp_path / 'a')
    assert not changed(drifted, {k: v for k, v in state(again).items() if k in segmentor})


def test_stage_2_loss_is_the_likelihood_ratio_loss():
    parts = model('uem_dd')
    task = make_task('uem', parts, stage(unknown_weight=3.0))
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    with torch.no_grad():
        maps = task.features(batch)
        llr = log_likelihood_ratio(parts.logits(maps), parts.ood(maps), (56, 56))[0]
        label = batch['label'][0]
        unknown = torch.nn.functional.softplus(-llr[label == 254]).sum()
        known = torch.nn.functional.softplus(llr[label < 254]).sum()
        total = 3 * (label == 254).sum() + (label < 254).sum()
        assert task(batch)['loss'].item() == pytest.approx(
            ((3 * unknown + known) / total).item(), rel=1e-5
        )
        assert task.weigh(batch).item() == total
    # With alpha 0 the gradient comes through the ratio alone; none reaches the segmentor.
    task(batch)['loss'].backward()
    assert all(p.grad is not None and p.grad.any() for p in parts.uem[1].parameters())
    assert all(p.grad is None for part in parts.decoder for p in part.parameters())


@pytest.mark.parametrize('alpha', [0.0, 0.5])
def test_the_loss_is_that_of_the_score_of_the_profile(alpha):
    parts = model('compact')
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    target = ood_target(batch['label'])
    with torch.no_grad():
        output = parts.model(normalise(batch['image'], parts.spec))
        ood = upsample(output.ood, target.shape[1:])
        for exact in (True, False):
            task = make_task('uem', parts, stage(alpha=alpha, exact=exact))
            llr = LikelihoodRatio(exact)(output, target.shape[1:])
            wanted = llr_loss(llr, target, ood=ood, alpha=alpha)
            assert task(batch)['loss'].item() == pytest.approx(wanted.item(), rel=1e-4)


@pytest.mark.parametrize('stride', [1, 2])
def test_small_unknown_objects_weigh_more_where_asked_for(stride):
    parts = model('compact')
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    label = batch['label'].fill_(0)
    label[:, 4:8, 4:8] = 254  # 16 pixels of 64: weight 2
    label[:, 20:40, 20:40] = 254  # larger: weight 1
    task = make_task('uem', parts, stage(unknown_weight=3, object_area=64, label_stride=stride))
    known = label.numel() - 16 - 400
    assert task.weigh(dict(batch)).item() == (known + 3 * (2 * 16 + 400)) / stride**2
    factors = torch.ones(label.shape)
    factors[:, 4:8, 4:8] = 2
    plain = make_task('uem', parts, stage(unknown_weight=3, label_stride=stride))
    with torch.no_grad():
        assert task(batch)['loss'].item() != pytest.approx(plain(batch)['loss'].item(), rel=1e-3)
        half = slice(stride // 2, None, stride)
        maps, target = task.features(batch), ood_target(task.label(batch))
        llr = log_likelihood_ratio(parts.logits(maps), parts.ood(maps), target.shape[1:])
        wanted = llr_loss(llr, target, unknown_weight=3, pixel_weight=factors[:, half, half])
        assert task(batch)['loss'].item() == pytest.approx(wanted.item(), rel=1e-5)


@pytest.mark.parametrize('stride', [1, 2])
def test_specks_of_unknown_are_left_out_where_asked_for(stride):
    parts = model('compact')
    batch = {k: v[None] for k, v in Squares()[(0, 1)].items() if k != 'name'}
    label = batch['label'].fill_(0)
    label[:, 4:8, 4:8] = 254  # 16 pixels: left out
    label[:, 20:26, 20:24] = 254  # 24: not
    label[:, 40:44, 40:44] = 255
    options = {'unknown_weight': 3, 'object_area': 400, 'label_stride': stride}
    task = make_task('uem', parts, stage(object_least=20, **options))
    known = label.numel() - 16 - 24 - 16
    weighed = dict(batch)
    weight = 3 * 24 * min((400 / 24) ** 0.5, 4)
    assert task.weigh(weighed).item() == pytest.approx((known + weight) / stride**2)
    without = {**batch, 'label': label.clone()}
    without['label'][:, 4:8, 4:8] = 255
    plain = make_task('uem', parts, stage(**options))
    with torch.no_grad():
        wanted = plain(without)['loss'].item()
        assert plain(batch)['loss'].item() != pytest.approx(wanted, rel=1e-4)
        assert task(batch)['loss'].item() == pytest.approx(wanted, rel=1e-6)
        assert task(weighed)['loss'].item() == pytest.approx(wanted, rel=1e-6)
    assert (label == 254).sum() == 40  # the batch's own is as it was


def test_a_uem_learns_the_white_square(tmp_path):
    parts = model('compact')
    settings = dataclasses.replace(ENGINE, steps=25, lr=5e-3, monitor='ap')
    validation = Validation(Squares(), 'uem', most=4, stride=1)
    with torch.inference_mode():
        before = validation(parts)
    task = make_task('uem', parts, stage(), validation)
    after = Trainer(task, Squares(), settings, tmp_path).fit()
    assert after['ap'] > max(before['ap'] + 0.2, 0.6)
    assert set(after) >= {'ap', 'fpr95', 'auroc'}


def test_a_bare_backbone_has_no_stage_1():
    bare = split(create_model('dinov2_vits14', **DINO))
    with pytest.raises(TrainingError, match='no class head'):
        make_task('segmentor', bare, stage())
    with pytest.raises(TrainingError, match='no UEM'):
        make_task('uem', split(create_model('dinov2_vits14', **DINO)), stage())
    with pytest.raises(TrainingError, match='cannot train a Linear'):
        split(torch.nn.Linear(1, 1))


# ------------------------------------------------------------------------------------ cache


def cache(folder: Path, **kwargs) -> FeatureCache:
    return FeatureCache(
        folder, Squares(), model('uem_dd'), **{'count': 9, 'batch_size': 4, **kwargs}
    )


def test_cached_features_are_those_of_the_backbone(tmp_path):
    cached = cache(tmp_path)
    sample = cached[(5, 3)]
    parts = model('uem_dd')
    from ood_perception.training.stream import StreamSampler

    key = [k for batch in StreamSampler(12, 1, 0, stop=9) for k in batch][3]
    source = Squares()[key]
    with torch.no_grad():
        maps = parts.features(normalise(source['image'][None], parts.spec))
    assert torch.equal(sample['label'], source['label'])
    for got, wanted in zip(sample['features'], maps, strict=True):
        torch.testing.assert_close(got.float(), wanted[0], rtol=1e-3, atol=1e-2)
    with torch.no_grad():
        task = make_task('uem', parts, stage())
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
    task = make_task('segmentor', parts, stage())
    Trainer(task, cached, ENGINE, tmp_path / 'run').fit()


def test_a_foreign_or_too_large_cache_is_refused(tmp_path):
    cache(tmp_path)
    with pytest.raises(TrainingError, match='another count'):
        cache(tmp_path, count=5)
    with pytest.raises(TrainingError, match='another identity'):
        cache(tmp_path, identity='x')
    with pytest.raises(TrainingError, match=r'MB free, but this run needs about \d+ MB'):
        cache(tmp_path / 'new', count=10**9)


# ---------------------------------------------------------------------------------- presets


def test_presets_hold_the_papers_numbers():
    for name in ('uem_gd', 'uem_dd', 'uem_gg'):
        preset = PRESETS[name]
        assert preset.model == name
        assert preset.segmentor.engine.steps == 90_000
        assert preset.uem.engine.steps == 4000
        assert preset.uem.engine.precision == 'bf16-mixed'
        assert preset.uem.alpha == (0.5 if name == 'uem_gg' else 0.0)
        for part in (preset.segmentor.engine, preset.uem.engine):
            assert (part.optimizer, part.lr, part.weight_decay) == ('adamw', 5e-4, 0)
            assert (part.warmup_steps, part.lr_end, part.seed) == (1500, 1e-7, 2000)
    prompts = PRESETS['s2m'].prompts.engine
    assert (prompts.lr, prompts.momentum, prompts.weight_decay) == (0.0025, 0.9, 1e-4)
    assert (prompts.milestones, prompts.steps) == ((60_000, 80_000), 148_300)
    for preset in PRESETS.values():
        for part in (preset.segmentor, preset.uem, preset.prompts):
            part.engine.check()


def test_overrides():
    changed_stage = override(
        PRESETS['uem_gd'].uem,
        ['lr=1e-3', 'steps=7', 'alpha=1', 'options.probability=0.5', 'milestones=[3, 4]'],
    )
    assert changed_stage.engine.lr == 1e-3
    assert changed_stage.engine.steps == 7
    assert changed_stage.alpha == 1.0
    assert changed_stage.options == {'probability': 0.5}
    assert changed_stage.engine.milestones == (3, 4)
    assert PRESETS['uem_gd'].uem.engine.steps == 4000


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
        override(PRESETS['uem_gd'].uem, [change])
    with pytest.raises(TrainingError, match='no preset named'):
        find_preset('uem')


def test_class_numbers():
    confusion = np.array([[3, 1, 0], [0, 4, 0], [0, 0, 0]])
    got = class_numbers(confusion)
    assert got['miou'] == pytest.approx((3 / 4 + 4 / 5) / 2)
    assert got['accuracy'] == pytest.approx(7 / 8)


def test_the_loading_process_makes_the_targets():
    parts = model('compact')
    options = {'unknown_weight': 3, 'object_area': 400, 'object_least': 20, 'label_stride': 2}
    task = make_task('uem', parts, stage(**options))
    samples = [Squares()[(0, 1)], Squares()[(0, 2)]]
    made, raw = task.collate(samples), default_collate(samples)
    assert set(made) - set(raw) == {'target', 'pixel_weight', 'weight'}
    assert task.weigh(made).item() == task.weigh(raw).item()
    with torch.no_grad():
        assert task(made)['loss'].item() == task(raw)['loss'].item()
    assert 'target' not in raw  # a batch is not changed by what it is asked
    made['weight'].fill_(7)
    assert task.weigh(made).item() == 7  # it is not made again
