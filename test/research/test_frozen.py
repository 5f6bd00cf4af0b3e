# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Frozen maps computed where samples are loaded are those that the model gives."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch

pytest.importorskip('lightning', reason="the extra 'train' is not installed")

from torch.utils.data import DataLoader, Dataset

from ood_perception.models.compact import Compact
from ood_training.data import loader
from ood_training.parts import normalise, split
from research.compact_data import Samples, as_sample
from research.frozen import Deep, FrozenFeatures, Shallow
from research.paper_uem import PaperUemTask
from research.presets import PaperStage

pytestmark = pytest.mark.slow

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def parts():
    torch.manual_seed(0)
    model = Compact(5, pretrained=False).eval()
    generator = torch.Generator().manual_seed(1)
    for name, buffer in model.named_buffers():  # fresh statistics would leave little to compare
        if name.endswith('running_mean'):
            buffer.copy_(torch.randn(buffer.shape, generator=generator) * 0.1)
    return split(model)


class Made(Dataset):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, key):
        rng = np.random.default_rng(key)
        image = rng.integers(0, 256, (64, 96, 3)).astype(np.uint8)
        label = rng.choice([0, 3, 254, 255], (64, 96)).astype(np.uint8)
        return as_sample(image, label, f'sample {key}')


KEYS = [[(0, 1), (0, 2)], [(0, 3), (1, 0)], [(1, 4), (1, 5)]]


@pytest.mark.parametrize('tiles', [False, True])
@pytest.mark.parametrize('workers', [0, 1])
@pytest.mark.parametrize('logits', [False, True])
def test_batches_carry_what_the_model_gives(parts, workers, logits, tiles, monkeypatch):
    # OpenVINO computes in bfloat16 on CPUs without units for it too, only slower
    monkeypatch.setattr('research.frozen.has_bfloat16_tiles', lambda: tiles)
    dataset = FrozenFeatures(Made(), parts, logits)
    batches = list(DataLoader(dataset, batch_sampler=KEYS, num_workers=workers))
    assert len(batches) == len(KEYS)
    for keys, batch in zip(KEYS, batches, strict=True):
        samples = [Made()[key] for key in keys]
        images = normalise(torch.stack([s['image'] for s in samples]), parts.spec)
        with torch.no_grad():
            maps = parts.features(images)
            known = parts.logits(maps)
        assert 'image' not in batch
        assert batch['name'] == [s['name'] for s in samples]
        assert torch.equal(batch['label'], torch.stack([s['label'] for s in samples]))
        assert ('logits' in batch) == logits
        found = [*batch['features'], *([batch['logits']] if logits else [])]
        true = [*maps, known][: len(found)]
        for number, (got, wanted) in enumerate(zip(found, true, strict=True)):
            assert got.shape == wanted.shape
            assert got.dtype == torch.float32
            if tiles and number > 1:  # the maps of stride 2 and 4 are never rounded
                assert float((got - wanted).norm()) <= 0.05 * float(wanted.norm())
            else:
                limit = 1e-3 * float(wanted.abs().max())
                torch.testing.assert_close(got, wanted, atol=limit, rtol=0)


def test_loss_and_gradients_equal_those_from_images(parts, monkeypatch):
    monkeypatch.setattr('research.frozen.has_bfloat16_tiles', lambda: False)
    task = PaperUemTask(parts, PaperStage(unknown_weight=3.0))
    task.train()
    plain = next(iter(DataLoader(Made(), batch_sampler=KEYS)))
    frozen = next(iter(DataLoader(FrozenFeatures(Made(), parts, True), batch_sampler=KEYS)))
    found = []
    for batch in (plain, frozen):
        task.zero_grad()
        loss = task(batch)['loss']
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in task.parameters() if p.requires_grad])
        found.append((loss.item(), gradient))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert float((found[0][1] - found[1][1]).norm()) <= 1e-2 * float(found[0][1].norm())


def test_a_loading_process_does_not_wait_for_threads_left_behind(parts):
    cv2.setNumThreads(2)
    cv2.GaussianBlur(np.zeros((2000, 2000), np.uint8), (0, 0), 5)  # starts them
    image, label = np.zeros((64, 96, 3), np.uint8), np.zeros((64, 96), np.uint8)
    samples = Samples([(1.0, [(image, label)], lambda _rng, *pair: pair)], 4, 0)
    batches = loader(FrozenFeatures(samples, parts, True), KEYS[:1], 1, timeout=240)
    assert next(iter(batches))['label'].shape == (2, 64, 96)


@torch.inference_mode()
def test_shallow_and_deep_are_the_backbone(parts):
    images = torch.randn(2, 3, 64, 96)
    fine = Shallow(parts.backbone)(images)
    found = [*fine, *Deep(parts.backbone)(fine[-1])]
    for got, true in zip(found, parts.backbone(images), strict=True):
        assert torch.equal(got, true)
