# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import hashlib

import pytest
import torch
import torch.nn.functional as F
from official_weights import assert_close, golden, uem_value

from ood_perception.checkpoints import load_checkpoint
from ood_perception.models import create_model
from ood_perception.models.heads import fold
from ood_perception.models.output import InputSpec
from ood_perception.scores import log_likelihood_ratio

SMALL = {
    'embed_dim': 24,
    'depth': 4,
    'num_heads': 2,
    'table_size': 56,
    'out_indices': (0, 1, 2, 3),
    'channels': 8,
    'mlp_hidden': 12,
    'projector_hidden': (10, 9),
    'num_classes': 5,
    'num_components': 3,
    'window': (56, 70),
    'stride': (28, 14),
}


@pytest.fixture(scope='module')
def official():
    case = golden('uem_dd.pt')
    model = create_model('uem_dd')
    weights = {key: uem_value(key, *about) for key, about in case['params'].items()}
    for key, total in case['weight_sums_float64'].items():
        assert weights[key].double().sum().item() == pytest.approx(total, abs=1e-3)
    report = load_checkpoint(model, weights)
    assert report.origin == 'uem'
    assert list(report.ignored) == ['segmentor.backbone.dinov2.mask_token']
    return case, model


@pytest.mark.slow  # a ViT-B at full size; below are numbers of small networks
def test_window_equals_the_official_code(official):
    case, model = official
    generator = torch.Generator('cpu').manual_seed(7)
    noise = torch.randn(1, 3, 526, 1044, generator=generator)
    window = 9.0 * F.avg_pool2d(noise, 9, stride=1)
    expected = case['window']
    with torch.inference_mode():
        out = model(window)
        tokens = out.features[0].flatten(2).transpose(1, 2)
    assert_close(tokens[:, ::8, ::8], expected['final_tokens_8'], 5e-4)
    assert_close(out.logits[:, :, ::4, ::4], expected['sem_seg_4'], 5e-4)
    assert_close(out.ood, expected['ood_score'], 5e-4)
    logits = F.interpolate(out.logits, (518, 1036), mode='bilinear')
    ood = F.interpolate(out.ood, (518, 1036), mode='bilinear')
    ratio = ood[:, 1] - ood[:, 0] - logits.amax(1)
    assert_close(ratio[:, ::8, ::8], expected['llr_8'], 5e-4)


@pytest.mark.slow  # twelve windows of a ViT-B
def test_sliding_windows_equal_the_official_code(official):
    case, model = official
    names = {'torch': torch}
    recipe = case['recipe_image'].split('normalise')[0]
    exec(recipe.strip(), names)  # builds an image from integers, no data of its own
    image = names['image'].contiguous()
    assert hashlib.sha256(image.numpy().tobytes()).hexdigest() == case['image_sha256']
    spec = InputSpec()
    mean, std = torch.tensor(spec.mean), torch.tensor(spec.std)
    score = sliding(model, ((image / 255 - mean) / std).permute(2, 0, 1)[None])
    assert score.dtype == torch.float32
    assert tuple(score.shape[1:]) == tuple(case['slide']['size'])
    assert_close(score[:, ::8, ::8], case['slide']['llr_8'], 5e-4)


@torch.inference_mode()
def sliding(model, images):
    """Likelihood ratio (B, H, W) of the mean over the published windows."""
    out = model.sliding(images)
    return log_likelihood_ratio(out.logits, out.ood, images.shape[2:])


def small(form, **options):
    torch.manual_seed(0)
    model = create_model(f'uem_{form}', **{**SMALL, **options})
    for name, value in model.state_dict().items():
        value.copy_(uem_value(name, tuple(value.shape), str(value.dtype).removeprefix('torch.')))
    return model


ONE_PIXEL = {
    'dd': ([0.644768, -0.281905, 0.394824, 0.334813, 0.514443], [0.062708, -0.000794]),
    'gd': ([0.504136, 0.263767, -1.669539, 0.887790, 0.050777], [0.062708, -0.000794]),
    'gg': ([0.504136, 0.263767, -1.669539, 0.887790, 0.050777], [0.999660, -0.775827]),
}
"""Logits and UEM outputs of this code when its large network equalled the official code."""


@pytest.mark.parametrize('form', ONE_PIXEL)
def test_numbers_stay_those_that_went_with_the_official_code(form):
    count = torch.arange(3 * 56 * 84, dtype=torch.float64)
    images = torch.sin(count**1.5 / 50).float().view(1, 3, 56, 84)
    with torch.inference_mode():
        out = small(form)(images)
    logits, ood = ONE_PIXEL[form]
    assert out.logits[0, :, 7, 11].tolist() == pytest.approx(logits, abs=1e-4)
    assert out.ood[0, :, 2, 3].tolist() == pytest.approx(ood, abs=1e-4)


@pytest.mark.parametrize('form', ['dd', 'gd', 'gg'])
def test_outputs_have_the_shapes_that_the_paper_gives(form):
    model = small(form)
    with torch.inference_mode():
        out = model(torch.randn(2, 3, 56, 98))
    assert out.logits.shape == (2, 5, 16, 28)
    assert out.ood.shape == (2, 2, 4, 7)
    assert out.features[0].shape == (2, 24, 4, 7)


@pytest.mark.parametrize('form', ['dd', 'gd', 'gg'])
def test_sliding_is_the_mean_of_upsampled_windows_before_the_score(form):
    model = small(form)
    images = torch.randn(1, 3, 75, 91, generator=torch.Generator().manual_seed(2))
    total, hits = torch.zeros(7, 75, 91), torch.zeros(75, 91)
    with torch.inference_mode():
        for y in (0, 19):
            for x in (0, 14, 21):
                out = model.single(images[:, :, y : y + 56, x : x + 70])
                for part, value in ((slice(0, 5), out.logits), (slice(5, 7), out.ood)):
                    up = F.interpolate(value, (56, 70), mode='bilinear')[0]
                    total[part, y : y + 56, x : x + 70] += up
                hits[y : y + 56, x : x + 70] += 1
        mean = total / hits
        expected = mean[6] - mean[5] - mean[:5].amax(0)
        score = sliding(model, images)
        batched = sliding(small(form, window_batch=4), images)
        as_forward = small(form, mode='sliding')(images)
    assert_close(score, expected[None], 1e-5)
    assert_close(batched, expected[None], 1e-5)
    assert as_forward.logits.shape == (1, 5, 75, 91)
    assert as_forward.ood.shape == (1, 2, 75, 91)


@pytest.mark.parametrize('size', [(56, 70), (84, 84), (40, 200), (29, 31), (56, 98)])
def test_sliding_handles_every_size(size):
    """Equal to the window, a multiple of the stride beyond it, smaller than it in one or both."""
    score = sliding(small('gd'), torch.randn(2, 3, *size))
    assert score.shape == (2, *size)
    assert score.isfinite().all()


@pytest.mark.parametrize('form', ['dd', 'gd', 'gg'])
def test_folded_decoder_gives_the_same_numbers(form):
    model, images = small(form), torch.randn(1, 3, 56, 84)
    with torch.inference_mode():
        expected = model(images)
        keys = set(model.state_dict())
        assert fold(fold(model)) is model
        got = model(images)
    assert torch.equal(got.logits, expected.logits)
    assert torch.equal(got.ood, expected.ood)
    decoder = 'segmentor.backbone.learnable_layers.'
    assert all(key.startswith(decoder) for key in keys ^ set(model.state_dict()))
    assert f'{decoder}fpn1.4.weight' not in model.state_dict()


@pytest.mark.parametrize('mode', ['single', 'sliding'])
def test_spec_says_what_sizes_are_taken(mode):
    assert small('dd', mode=mode).spec.multiple_of == (14 if mode == 'single' else 1)


def test_wrong_inputs_are_named():
    model = small('dd')
    with pytest.raises(ValueError, match='multiples of 14'):
        model(torch.zeros(1, 3, 57, 70))
    with pytest.raises(ValueError, match='28 pixels'):
        model(torch.zeros(1, 3, 14, 70))
    with pytest.raises(ValueError, match='28 pixels'):
        model.sliding(torch.zeros(1, 3, 27, 70))


@pytest.mark.parametrize(
    'options',
    [
        {'mode': 'both'},
        {'window': (50, 70)},
        {'stride': (0, 14)},
        {'stride': (28, 71)},
        {'window_batch': 0},
        {'out_indices': (0, 1, 2)},
        {'out_indices': (0, 1, 2, 2)},
    ],
)
def test_wrong_options_are_named(options):
    with pytest.raises(ValueError, match=next(iter(options))):
        create_model('uem_dd', **{**SMALL, **options})


def test_parameters_are_those_of_the_paper():
    with torch.device('meta'):
        for form, head in (('dd', 788_226), ('gd', 788_226), ('gg', 788_228)):
            model = create_model(f'uem_{form}')
            trained = [*model.ood_projector.parameters(), *model.ood_head.parameters()]
            assert sum(p.numel() for p in trained if p.requires_grad) == head
            backbone = model.segmentor.backbone
            assert round(sum(p.numel() for p in backbone.dinov2.parameters()) / 1e4) == 8658
            decoder = sum(p.numel() for p in backbone.learnable_layers.parameters())
            assert round(decoder / 1e4) == 1496
