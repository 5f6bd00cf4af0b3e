# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Channels that nothing reads can be cut out of the heads without a trace; the loss teaches."""

from __future__ import annotations

import pytest
import torch

from ood_perception.models.compact import WIDTHS, Compact
from ood_training.parts import split
from research.distil import INPUTS, READERS, DistilTask, narrowed, worth
from research.presets import PRESETS

WIDE = (64, 128, 40)


def heads(model):
    return {k: v for k, v in model.state_dict().items() if not k.startswith('backbone.')}


def groups(widths):
    pyramid, unknown, fine = widths
    return dict(zip(READERS, (pyramid, pyramid, unknown, fine, fine, fine), strict=True))


@pytest.fixture
def teacher():
    torch.manual_seed(0)
    model = Compact(5, pretrained=False, widths=WIDE).eval()
    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.weight.data.uniform_(0.5, 1.5)
            layer.bias.data.uniform_(-0.5, 0.5)
    return model


@pytest.fixture
def images():
    return torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))


@torch.no_grad()
def test_channels_that_nothing_reads_are_those_that_go(teacher, images):
    # of each group only some channels are read, chosen at random
    rng = torch.Generator().manual_seed(2)
    for group, count in groups(WIDTHS).items():
        wide = groups(WIDE)[group]
        dead = torch.randperm(wide, generator=rng)[count:]
        for key, value in heads(teacher).items():
            if value.ndim > 1 and value.shape[1] > 1 and key.startswith(INPUTS[group]):
                value[:, dead] = 0
    wanted = teacher(images)

    student = Compact(5, pretrained=False).eval()
    student.backbone = teacher.backbone
    cut = narrowed(heads(teacher), groups(WIDTHS), worth(teacher, images))
    assert not student.load_state_dict(cut, strict=False).unexpected_keys
    found = student(images)

    assert {k: v.shape for k, v in heads(student).items()} == {k: v.shape for k, v in cut.items()}
    torch.testing.assert_close(found.logits, wanted.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(found.ood, wanted.ood, rtol=1e-4, atol=1e-4)


def test_nothing_cut_is_the_teacher(teacher, images):
    state = heads(teacher)
    same = narrowed(state, groups(WIDE), worth(teacher, images))
    assert all(torch.equal(same[key], value) for key, value in state.items())


def test_the_loss_is_that_of_the_labels_alone_where_the_student_is_the_teacher(teacher, images):
    parts = split(teacher)
    task = DistilTask(parts, PRESETS['compact'].uem)
    label = torch.zeros(2, 64, 96, dtype=torch.int64)
    label[:, 20:40, 30:60] = 254
    task.eval()
    with torch.no_grad():
        maps = parts.features(images)
        batch = {
            'features': maps,
            'logits': parts.logits(maps),
            'ood': parts.ood(maps),
            'label': label,
        }
        losses = task(batch)
        other = task({**batch, 'ood': batch['ood'] + torch.tensor([0.0, 3.0]).view(2, 1, 1)})

    assert losses['ratio'] == losses['classes'] == 0
    assert losses['truth'] > 0
    assert losses['loss'] == pytest.approx(0.3 * losses['truth'])
    # three nats off everywhere: smooth L1 of 2.5, once over what is likely, a tenth over all
    assert other['ratio'] == pytest.approx(2.75, rel=1e-4)
    assert other['truth'] == losses['truth']
    trained = {name for name, p in task.named_parameters() if p.requires_grad}
    assert {name.split('.')[1] for name in trained} == {'fpn', 'uem'}
