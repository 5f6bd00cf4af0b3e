# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import math

import pytest
import torch
import torch.nn.functional as F
from official_weights import assert_close, uem_value, weights_by_rule

from ood_perception.checkpoints import load_checkpoint
from ood_perception.models import create_model

DIM, DEPTH, HEADS = 48, 5, 3
SMALL = {'embed_dim': DIM, 'depth': DEPTH, 'num_heads': HEADS}


def official_weights():
    shapes = {
        'cls_token': (1, 1, DIM),
        'storage_tokens': (1, 4, DIM),
        'mask_token': (1, DIM),
        'patch_embed.proj.weight': (DIM, 3, 16, 16),
        'patch_embed.proj.bias': (DIM,),
        'norm.weight': (DIM,),
        'norm.bias': (DIM,),
        'rope_embed.periods': (DIM // HEADS // 4,),
    }
    for i in range(DEPTH):
        block = {
            'norm1.weight': (DIM,),
            'norm1.bias': (DIM,),
            'attn.qkv.weight': (3 * DIM, DIM),
            'attn.qkv.bias': (3 * DIM,),
            'attn.qkv.bias_mask': (3 * DIM,),
            'attn.proj.weight': (DIM, DIM),
            'attn.proj.bias': (DIM,),
            'ls1.gamma': (DIM,),
            'norm2.weight': (DIM,),
            'norm2.bias': (DIM,),
            'mlp.fc1.weight': (4 * DIM, DIM),
            'mlp.fc1.bias': (4 * DIM,),
            'mlp.fc2.weight': (DIM, 4 * DIM),
            'mlp.fc2.bias': (DIM,),
            'ls2.gamma': (DIM,),
        }
        shapes |= {f'blocks.{i}.{key}': shape for key, shape in block.items()}
    return weights_by_rule(shapes, uem_value)


def rotated(x, rows, columns):
    """Rotary positions of the paper's section 3.2, on (B, heads, rows * columns, d)."""
    d = x.shape[-1]
    periods = 100.0 ** (2 * torch.arange(d // 4) / (d // 2))
    places = [2 * (torch.arange(n) + 0.5) / n - 1 for n in (rows, columns)]
    places = torch.stack(torch.meshgrid(*places, indexing='ij'), -1).flatten(0, 1)
    angles = (2 * math.pi * places[:, :, None] / periods).flatten(1).tile(2)
    first, second = x.chunk(2, -1)
    return x * angles.cos() + torch.cat([-second, first], -1) * angles.sin()


def official_forward(w, images):
    """The published computation over the official keys, restated without any module."""
    batch, _, height, width = images.shape
    rows, columns = height // 16, width // 16
    norm = lambda x, name: F.layer_norm(x, (DIM,), w[f'{name}.weight'], w[f'{name}.bias'], 1e-5)  # noqa: E731
    linear = lambda x, name: F.linear(x, w[f'{name}.weight'], w[f'{name}.bias'])  # noqa: E731
    x = F.conv2d(images, w['patch_embed.proj.weight'], w['patch_embed.proj.bias'], stride=16)
    first = [w[name].expand(batch, -1, -1) for name in ('cls_token', 'storage_tokens')]
    x = torch.cat([*first, x.flatten(2).transpose(1, 2)], 1)
    outputs = []
    for i in range(DEPTH):
        name = f'blocks.{i}'
        bias = w[f'{name}.attn.qkv.bias'].clone()
        bias[DIM : 2 * DIM] = 0  # as `bias_mask` holds it
        qkv = F.linear(norm(x, f'{name}.norm1'), w[f'{name}.attn.qkv.weight'], bias)
        q, k, v = qkv.unflatten(2, (3, HEADS, -1)).permute(2, 0, 3, 1, 4)
        q, k = (torch.cat([t[:, :, :5], rotated(t[:, :, 5:], rows, columns)], 2) for t in (q, k))
        attended = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + w[f'{name}.ls1.gamma'] * linear(attended, f'{name}.attn.proj')
        y = linear(F.gelu(linear(norm(x, f'{name}.norm2'), f'{name}.mlp.fc1')), f'{name}.mlp.fc2')
        x = x + w[f'{name}.ls2.gamma'] * y
        tokens = norm(x, 'norm')[:, 5:]
        outputs.append(tokens.transpose(1, 2).unflatten(2, (rows, columns)))
    return outputs


@pytest.mark.parametrize('size', [(128, 128), (128, 80), (48, 176), (16, 16)])
def test_equals_the_official_computation_at_any_size(size):
    weights = official_weights()
    model = create_model('dinov3_vits16', **SMALL)
    report = load_checkpoint(model, weights)
    assert report.origin == 'dinov3'
    assert not report.missing
    assert all(k.endswith(('mask_token', 'bias_mask', 'periods')) for k in report.ignored)
    images = torch.randn(2, 3, *size, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = model(images)
    assert out.logits is None
    expected = official_forward(weights, images)
    for actual, wanted in zip(out.features, expected[-4:], strict=True):
        assert_close(actual, wanted, 2e-5)


def test_takes_the_names_of_timm():
    model, other = (create_model('dinov3_vits16', **SMALL) for _ in range(2))
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.normal_(0, 0.1)
    report = load_checkpoint(other, dict(model.vit.state_dict()))
    assert report.origin == 'dinov3'
    images = torch.randn(1, 3, 48, 64)
    with torch.no_grad():
        for actual, wanted in zip(other(images).features, model(images).features, strict=True):
            assert torch.equal(actual, wanted)


@pytest.mark.parametrize(
    ('name', 'parameters'),
    [('dinov3_vits16', 21_593_472), ('dinov3_vitb16', 85_659_648), ('dinov3_vitl16', 303_129_600)],
)
def test_sizes_are_the_published_ones(name, parameters):
    with torch.device('meta'):
        model = create_model(name)
    # the paper gives 21, 86 and 300 million; without the mask token and the bias of the keys
    assert abs(sum(p.numel() for p in model.parameters()) - parameters) < 0.01 * parameters
    assert model.spec.multiple_of == 16
