# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
import torch.nn.functional as F
from official_weights import assert_close, uem_value, weights_by_rule

from ood_perception.checkpoints import load_checkpoint
from ood_perception.models import create_model

SMALL = {'embed_dim': 24, 'depth': 5, 'num_heads': 3, 'table_size': 14 * 9}


def official_weights(registers, gated=False, dim=24, depth=5, side=9):
    shapes = {
        'cls_token': (1, 1, dim),
        'pos_embed': (1, side * side + 1, dim),
        'mask_token': (1, dim),
        'patch_embed.proj.weight': (dim, 3, 14, 14),
        'patch_embed.proj.bias': (dim,),
        'norm.weight': (dim,),
        'norm.bias': (dim,),
    }
    if registers:
        shapes['register_tokens'] = (1, 4, dim)
    for i in range(depth):
        block = {
            'norm1.weight': (dim,),
            'norm1.bias': (dim,),
            'attn.qkv.weight': (3 * dim, dim),
            'attn.qkv.bias': (3 * dim,),
            'attn.proj.weight': (dim, dim),
            'attn.proj.bias': (dim,),
            'ls1.gamma': (dim,),
            'norm2.weight': (dim,),
            'norm2.bias': (dim,),
            'ls2.gamma': (dim,),
        }
        up, down, inner = ('w12', 'w3', dim * 4) if gated else ('fc1', 'fc2', dim * 4)
        block[f'mlp.{up}.weight'] = (2 * inner if gated else inner, dim)
        block[f'mlp.{up}.bias'] = (2 * inner if gated else inner,)
        block[f'mlp.{down}.weight'] = (dim, inner)
        block[f'mlp.{down}.bias'] = (dim,)
        shapes |= {f'blocks.{i}.{key}': shape for key, shape in block.items()}
    return weights_by_rule(shapes, uem_value)


def official_forward(w, images, heads=3):
    """The published computation over the official keys, restated without any module."""
    batch, _, height, width = images.shape
    rows, columns = height // 14, width // 14
    dim = w['cls_token'].shape[-1]
    norm = lambda x, name: F.layer_norm(x, (dim,), w[f'{name}.weight'], w[f'{name}.bias'], 1e-6)  # noqa: E731
    linear = lambda x, name: F.linear(x, w[f'{name}.weight'], w[f'{name}.bias'])  # noqa: E731
    x = F.conv2d(images, w['patch_embed.proj.weight'], w['patch_embed.proj.bias'], stride=14)
    x = torch.cat([w['cls_token'].expand(batch, -1, -1), x.flatten(2).transpose(1, 2)], dim=1)
    table = w['pos_embed'][:, 1:]
    side = round(table.shape[1] ** 0.5)
    if rows * columns != side * side or rows != columns:
        grid = table.reshape(1, side, side, dim).permute(0, 3, 1, 2)
        if 'register_tokens' in w:
            grid = F.interpolate(grid, (rows, columns), mode='bicubic', antialias=True)
        else:
            factor = ((rows + 0.1) / side, (columns + 0.1) / side)
            grid = F.interpolate(grid, scale_factor=factor, mode='bicubic')
        table = grid.permute(0, 2, 3, 1).reshape(1, -1, dim)
    x = x + torch.cat([w['pos_embed'][:, :1], table], dim=1)
    prefix = 1
    if 'register_tokens' in w:
        registers = w['register_tokens'].expand(batch, -1, -1)
        x, prefix = torch.cat([x[:, :1], registers, x[:, 1:]], dim=1), 5
    outputs = []
    for i in range(sum(key.endswith('ls1.gamma') for key in w)):
        name = f'blocks.{i}'
        qkv = linear(norm(x, f'{name}.norm1'), f'{name}.attn.qkv')
        q, k, v = qkv.unflatten(-1, (3, heads, dim // heads)).permute(2, 0, 3, 1, 4)
        weights = (q @ k.transpose(-1, -2) * (dim // heads) ** -0.5).softmax(-1)
        attended = (weights @ v).transpose(1, 2).flatten(2)
        x = x + w[f'{name}.ls1.gamma'] * linear(attended, f'{name}.attn.proj')
        y = norm(x, f'{name}.norm2')
        if f'{name}.mlp.w12.weight' in w:
            gate, y = linear(y, f'{name}.mlp.w12').chunk(2, dim=-1)
            y = linear(F.silu(gate) * y, f'{name}.mlp.w3')
        else:
            y = linear(F.gelu(linear(y, f'{name}.mlp.fc1')), f'{name}.mlp.fc2')
        x = x + w[f'{name}.ls2.gamma'] * y
        tokens = norm(x, 'norm')[:, prefix:]
        outputs.append(tokens.transpose(1, 2).unflatten(2, (rows, columns)))
    return outputs


@pytest.mark.parametrize('size', [(126, 126), (126, 70), (42, 154), (28, 28), (182, 196)])
@pytest.mark.parametrize('registers', [False, True])
def test_equals_the_official_computation_at_any_size(registers, size):
    weights = official_weights(registers)
    model = create_model('dinov2_vits14_reg' if registers else 'dinov2_vits14', **SMALL)
    report = load_checkpoint(model, weights)
    assert report.origin == 'dinov2'
    assert set(report.used) == set(weights) - {'mask_token'}
    assert list(report.ignored) == ['mask_token']
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(images)
    assert out.logits is None
    assert out.ood is None
    expected = official_forward(weights, images)
    for actual, wanted in zip(out.features, expected[-4:], strict=True):
        assert_close(actual, wanted, 2e-5)


def test_gated_mlp_of_the_giant_equals_the_official_computation():
    weights = official_weights(registers=False, gated=True)
    model = create_model('dinov2_vitg14', **SMALL, mlp_ratio=8.0, out_indices=(0, 4))
    load_checkpoint(model, weights)
    images = torch.randn(1, 3, 56, 84)
    with torch.no_grad():
        features = model(images).features
    expected = official_forward(weights, images)
    for actual, wanted in zip(features, (expected[0], expected[4]), strict=True):
        assert_close(actual, wanted, 2e-5)


@pytest.mark.parametrize(
    ('name', 'parameters', 'tensors', 'width'),
    [
        # The official models hold one more tensor, the mask token of training.
        ('dinov2_vits14', 22_056_576, 175, 384),
        ('dinov2_vits14_reg', 22_058_112, 176, 384),
        ('dinov2_vitb14', 86_580_480, 175, 768),
        ('dinov2_vitb14_reg', 86_583_552, 176, 768),
        ('dinov2_vitl14', 304_368_640, 343, 1024),
        ('dinov2_vitl14_reg', 304_372_736, 344, 1024),
        ('dinov2_vitg14', 1_136_480_768, 567, 1536),
        ('dinov2_vitg14_reg', 1_136_486_912, 568, 1536),
    ],
)
def test_sizes_are_the_published_ones(name, parameters, tensors, width):
    with torch.device('meta'):
        model = create_model(name)
    registers = width if name.endswith('_reg') else 0  # merged: class token holds its position
    assert sum(p.numel() for p in model.parameters()) == parameters - width - registers
    assert len(model.state_dict()) == tensors - 1
    assert model.spec.multiple_of == 14


FAMILIES = {
    'dinov2_vits14': (14, SMALL),
    'dinov3_vits16': (16, {'embed_dim': 48, 'depth': 5, 'num_heads': 3}),
}


@pytest.mark.parametrize(
    ('name', 'size'),
    [
        *(('dinov2_vits14', size) for size in ((120, 160), (14, 15), (0, 14))),
        *(('dinov3_vits16', size) for size in ((120, 160), (16, 15), (0, 16))),
    ],
)
def test_sizes_that_do_not_fit_are_named(name, size):
    patch, options = FAMILIES[name]
    model = create_model(name, **options)
    with pytest.raises(ValueError, match=f'multiples of {patch}.*got {size[0]} x {size[1]}'):
        model(torch.zeros(1, 3, *size))


@pytest.mark.parametrize('name', FAMILIES)
def test_blocks_that_do_not_exist_are_named(name):
    with pytest.raises(ValueError, match=r'0\.\.4'):
        create_model(name, **FAMILIES[name][1], out_indices=(5,))
