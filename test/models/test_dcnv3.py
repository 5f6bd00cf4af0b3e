# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from official_weights import assert_close, golden

from ood_perception.models import dcnv3 as room
from ood_perception.models.dcnv3 import (
    POINTS,
    DCNv3,
    dcnv3,
    sample_at_once,
    sample_from_table,
    sample_point_by_point,
)

CASES = golden('internimage_dcnv3_op.pt')

# No InternImage has another kernel, stride or dilation, which the official operator can compute.
USED = [c for c in CASES['core'] if (c['kernel'], c['stride'], c['dilation']) == (3, 1, 1)]


@pytest.mark.parametrize('function', [sample_point_by_point, sample_from_table, sample_at_once])
@pytest.mark.parametrize('case', USED)
def test_equals_the_official_operator(case, function):
    inputs = (case['input'], case['offset'], case['mask'])
    assert_close(function(*inputs, case['group'], case['offset_scale']), case['output'], 1e-5)


@pytest.mark.parametrize('case', CASES['module'])
def test_equals_the_official_layer(case):
    options = dict(case['cfg'])
    layer = DCNv3(groups=options.pop('group'), **options).eval()
    layer.load_state_dict(case['state_dict'], strict=True)
    with torch.no_grad():
        assert_close(layer(case['input']), case['output'], 1e-5)


def by_hand(value, offset, mask, groups, scale):
    """The definition, pixel by pixel, in float64."""
    batch, height, width, channels = value.shape
    part = channels // groups
    out = torch.zeros(batch, height, width, channels, dtype=torch.float64)
    for n, i, j, g in torch.cartesian_prod(*map(torch.arange, (batch, height, width, groups))):
        channel = slice(g * part, (g + 1) * part)
        for k, (kx, ky) in enumerate(POINTS):
            place = (g * 9 + k) * 2
            dx, dy = offset[n, i, j, place : place + 2].double().tolist()
            x = j + scale * (kx + dx)
            y = i + scale * (ky + dy)
            for cx in (int(x // 1), int(x // 1) + 1):
                for cy in (int(y // 1), int(y // 1) + 1):
                    if 0 <= cx < width and 0 <= cy < height:
                        weight = (1 - abs(x - cx)) * (1 - abs(y - cy)) * mask[n, i, j, g * 9 + k]
                        out[n, i, j, channel] += weight.double() * value[n, cy, cx, channel]
    return out


@pytest.mark.parametrize('function', [sample_point_by_point, sample_from_table, sample_at_once])
@pytest.mark.parametrize(('groups', 'scale'), [(2, 2.0), (1, 0.7), (4, 1.0)])
def test_equals_the_definition_far_outside_of_the_image_too(groups, scale, function):
    generator = torch.Generator().manual_seed(3)
    value = torch.randn(2, 5, 7, 8, generator=generator)
    offset = 4 * torch.randn(2, 5, 7, 18 * groups, generator=generator)
    mask = torch.randn(2, 5, 7, 9 * groups, generator=generator)
    expected = by_hand(value, offset, mask, groups, scale)
    assert_close(function(value, offset, mask, groups, scale).double(), expected, 1e-5)


def test_strips_of_the_table_join(monkeypatch):
    value, offset, mask = (
        torch.randn(2, 11, 6, 8),
        torch.randn(2, 11, 6, 36),
        torch.rand(2, 11, 6, 18),
    )
    whole = sample_from_table(value, offset, mask, 2, 1.0)
    monkeypatch.setattr(room, 'SUMS_AT_ONCE', 2 * 6 * 2 * 4)
    assert torch.equal(sample_from_table(value, offset, mask, 2, 1.0), whole)


@pytest.mark.parametrize('bad', [1e20, -1e20])
def test_huge_offsets_read_zeros(bad):
    value, mask = torch.ones(1, 4, 5, 4), torch.ones(1, 4, 5, 9)
    for function in (sample_point_by_point, sample_from_table):
        out = function(value, torch.full((1, 4, 5, 18), bad), mask, 1, 1.0)
        assert torch.equal(out, torch.zeros_like(out))


def test_coordinates_stay_exact_under_autocast():
    """bfloat16 has 8 bits: at column 300 its pixel coordinates are 2 apart."""
    layer = DCNv3(16, 2).eval()
    torch.manual_seed(0)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    x = torch.randn(1, 3, 400, 16)
    with torch.no_grad():
        exact = layer(x)
        with torch.autocast('cpu', dtype=torch.bfloat16):
            rounded = layer(x).float()
    error = (rounded - exact).abs().mean((0, 1, 3))
    assert error[320:390].mean() < 3 * error[10:80].mean()


def test_gradients_match_finite_differences():
    torch.manual_seed(1)
    value = torch.randn(1, 4, 4, 4, requires_grad=True)
    offset = 0.3 * torch.rand(1, 4, 4, 36) + 0.2
    mask = torch.rand(1, 4, 4, 18, requires_grad=True)
    out = dcnv3(value, offset, mask, groups=2)
    out.square().sum().backward()
    assert_close(out.detach(), by_hand(value.detach(), offset, mask.detach(), 2, 1.0), 1e-5)
    step = 1e-2
    for tensor in (value, mask):
        moved = tensor.detach().clone()
        moved[0, 1, 2, 3] += step
        pair = (moved, mask) if tensor is value else (value, moved)
        up = by_hand(pair[0].detach(), offset, pair[1].detach(), 2, 1.0).square().sum()
        moved[0, 1, 2, 3] -= 2 * step
        down = by_hand(pair[0].detach(), offset, pair[1].detach(), 2, 1.0).square().sum()
        assert tensor.grad[0, 1, 2, 3].item() == pytest.approx(
            ((up - down) / 2 / step).item(), 1e-2
        )


def test_first_implementation_that_supports_the_inputs_is_used(monkeypatch):
    used = []
    never = room.Implementation('never', lambda *_: False, lambda *_: 1 / 0)
    mine = room.Implementation('mine', lambda *_: True, lambda value, *_: used.append(1) or value)
    monkeypatch.setattr(room, 'IMPLEMENTATIONS', [never, mine, *room.IMPLEMENTATIONS])
    dcnv3(torch.zeros(1, 2, 2, 4), torch.zeros(1, 2, 2, 18), torch.zeros(1, 2, 2, 9), groups=1)
    assert used == [1]


@pytest.mark.parametrize(
    ('shapes', 'text'),
    [
        (((1, 4, 4, 5), (1, 4, 4, 36), (1, 4, 4, 18)), 'divisible by 2'),
        (((1, 4, 4, 4), (1, 4, 4, 18), (1, 4, 4, 18)), 'offset'),
        (((1, 4, 4, 4), (1, 4, 4, 36), (1, 4, 3, 18)), 'mask'),
    ],
)
def test_wrong_shapes_are_named(shapes, text):
    with pytest.raises(ValueError, match=text):
        dcnv3(*(torch.zeros(s) for s in shapes), groups=2)


def test_exported_layer_samples_once_and_gives_the_same_numbers():
    torch.manual_seed(0)
    layer = DCNv3(16, groups=2).eval()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x = torch.randn(2, 9, 12, 16)
    with torch.no_grad():
        program = torch.export.export(layer, (x,))
        calls = [str(node.target) for node in program.graph.nodes if node.op == 'call_function']
        assert sum('grid_sample' in call for call in calls) == 1
        assert_close(program.module()(x), layer(x), 1e-5)
