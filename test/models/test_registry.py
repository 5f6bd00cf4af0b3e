# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch

from ood_perception.models import MODELS, SEGMENTORS, create_model

COUNTS = {  # backbone, whole model: as published and as measured on the official code
    't': (28_769_520, 59_077_148, 767),
    's': (48_502_560, 79_866_956, 825),
    'b': (94_909_920, 128_387_852, 825),
    'l': (218_952_370, 255_600_606, 913),
    'xl': (328_971_228, 367_733_000, 957),
    'h': (1_073_122_480, 1_120_338_396, 1417),
}


@pytest.mark.parametrize('variant', COUNTS)
def test_internimage_has_the_published_number_of_parameters(variant):
    with torch.device('meta'):
        model = create_model(f'internimage_{variant}_upernet')
    backbone, whole, tensors = COUNTS[variant]
    assert sum(p.numel() for p in model.backbone.parameters()) == backbone
    assert sum(p.numel() for p in model.parameters()) == whole
    assert len(model.state_dict()) == tensors


@pytest.mark.parametrize(('variant', 'millions'), [('l', 220), ('xl', 330)])
def test_segformer_models_have_the_published_number_of_parameters(variant, millions):
    with torch.device('meta'):
        model = create_model(f'internimage_{variant}_segformer')
    assert round(sum(p.numel() for p in model.parameters()) / 1e6) == millions


def test_largest_model_is_as_large_as_its_paper_says():
    with torch.device('meta'):
        model = create_model('internimage_g_upernet')
    assert sum(p.numel() for p in model.backbone.parameters()) == pytest.approx(3e9, rel=0.03)


def test_every_name_that_is_promised_is_there():
    names = {f'internimage_{v}_upernet' for v in ('t', 's', 'b', 'l', 'xl', 'h', 'g')}
    names |= {f'internimage_{v}_segformer' for v in ('l', 'xl')}
    names |= {f'dinov2_vit{v}14{r}' for v in 'sblg' for r in ('', '_reg')}
    names |= {'uem_dd', 'uem_gd', 'uem_gg', 'compact'}
    assert set(SEGMENTORS) >= names
    assert set(MODELS) == {*SEGMENTORS, 's2m_prompt_rcnn'}


def test_models_come_in_evaluation_mode():
    model = create_model('dinov2_vits14', embed_dim=8, depth=4, num_heads=1, table_size=28)
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(
    ('name', 'options', 'text'),
    [
        ('uem_ggg', {}, 'did you mean'),
        ('zebra', {}, 'there are: compact'),
        ('internimage_t_upernet', {'depht': 3}, "internimage_t_upernet.*'depht'"),
        ('s2m_prompt_rcnn', {'classes': 3}, "s2m_prompt_rcnn.*'classes'"),
        ('internimage_t_upernet', {'channels': 30}, '30 channels'),
    ],
)
def test_wrong_names_and_options_are_named(name, options, text):
    with pytest.raises(ValueError, match=text):
        create_model(name, **options)
