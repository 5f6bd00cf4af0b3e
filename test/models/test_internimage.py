# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from mmseg_pipeline import TestPipeline, segment_image
from official_weights import assert_close, golden, mmseg_value, weights_by_rule

from ood_perception.checkpoints import load_checkpoint
from ood_perception.models import create_model

SMALL = golden('internimage_small.pt')
HEADS = golden('internimage_heads_small.pt')


def head_model(head, **options):
    case = HEADS[head]
    model = create_model(
        f'internimage_l_{head}',
        **case['backbone_cfg'],
        num_classes=case['head']['num_classes'],
        head_channels=case['head']['channels'],
        **options,
    )
    return model, weights_by_rule(case['shapes'], mmseg_value)


@pytest.mark.parametrize('suffix', ['', '_odd'])
@pytest.mark.parametrize('name', SMALL['variants'])
def test_stages_equal_the_official_backbone(name, suffix):
    case = SMALL['variants'][name]
    options = {key: value for key, value in case['cfg'].items() if key != 'level2_post_norm'}
    model = create_model('internimage_t_upernet', head_channels=8, **options)
    load_checkpoint(model.backbone, weights_by_rule(case['shapes'], mmseg_value), origin='mmseg')
    with torch.no_grad():
        stages = model(SMALL['input' + suffix]).features
    for stage, expected in zip(stages, case['outputs' + suffix], strict=True):
        assert_close(stage, expected, 2e-5)


@pytest.mark.parametrize('suffix', ['', '_odd'])
@pytest.mark.parametrize('head', ['upernet', 'segformer'])
def test_logits_equal_the_official_heads(head, suffix):
    options = {'aux_channels': HEADS[head]['aux']['channels']} if head == 'upernet' else {}
    model, weights = head_model(head, **options)
    report = load_checkpoint(model, weights)
    assert report.origin == 'mmseg'
    assert set(report.used) == set(weights)
    assert not report.ignored
    with torch.no_grad():
        out = model(HEADS[head]['input' + suffix])
    assert out.ood is None
    assert_close(out.logits, HEADS[head]['decode_logits' + suffix], 3e-5)


def test_auxiliary_head_equals_the_official_one():
    case = HEADS['upernet']
    model, weights = head_model('upernet', aux_channels=case['aux']['channels'])
    load_checkpoint(model, weights)
    with torch.no_grad():
        out = model.auxiliary_head(model.backbone(case['input'])[2])
    assert_close(out, case['aux_logits'], 3e-5)


@pytest.mark.parametrize('case', HEADS['upernet']['pipeline'], ids=lambda c: str(c['size']))
def test_uint8_pipeline_equals_the_official_one(case):
    model, weights = head_model('upernet', auxiliary=False)
    load_checkpoint(model, weights)
    image = case['bgr'].flip(-1).numpy()
    pipeline = TestPipeline(case['scale'], 32)
    images = pipeline(image)
    assert tuple(images.shape[2:]) == tuple(case['size'])
    assert_close(images[0, :, ::4, ::4], case['tensor_4'], 1e-6)
    logits = segment_image(model, image, pipeline)
    assert_close(logits[None, :, ::4, ::4], case['logits_4'], 3e-5)
    assert torch.equal(logits.argmax(0)[None], case['classes'].long())


def test_cityscapes_pipeline_leaves_a_full_frame_alone():
    image = torch.randint(0, 256, (64, 128, 3), dtype=torch.uint8).numpy()
    out = TestPipeline((128, 64))(image)
    mean, std = torch.tensor([123.675, 116.28, 103.53]), torch.tensor([58.395, 57.12, 57.375])
    expected = ((torch.from_numpy(image).double() - mean) / std).permute(2, 0, 1)[None]
    assert_close(out.double(), expected, 1e-6)


def test_pipeline_refuses_other_images():
    with pytest.raises(ValueError, match='float32'):
        TestPipeline()(torch.zeros(4, 4, 3).numpy())


def test_used_classes_cut_the_logits_only():
    model, weights = head_model('segformer', used_classes=3)
    load_checkpoint(model, weights)
    with torch.no_grad():
        logits = model(HEADS['segformer']['input']).logits
    assert_close(logits, HEADS['segformer']['decode_logits'][:, :3], 3e-5)


def test_half_precision_is_close_to_full_precision():
    model, weights = head_model('segformer')
    load_checkpoint(model, weights)
    images = HEADS['segformer']['input']
    with torch.no_grad(), torch.autocast('cpu', dtype=torch.bfloat16):
        logits = model(images).logits.float()
    expected = HEADS['segformer']['decode_logits']
    assert (logits - expected).abs().mean() < 0.05 * expected.std()


def test_wrong_input_is_named():
    model, _ = head_model('segformer')
    with pytest.raises(ValueError, match=r'\(1, 4, 32, 32\)'):
        model(torch.zeros(1, 4, 32, 32))
