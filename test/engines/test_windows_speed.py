# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The decoder projects before it enlarges, which gives the same output."""

from __future__ import annotations

import torch

from ood_perception.models.heads import FPN


def test_decoder_equals_its_layers_one_after_the_other() -> None:
    torch.manual_seed(0)
    decoder = FPN(24, 8, 12).eval()
    maps = [torch.randn(2, 24, 6, 5) for _ in range(4)]
    seen: list[torch.Tensor] = []
    for conv in decoder.fpn_convs[:2]:
        conv.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    with torch.inference_mode():
        decoder(maps, maps[-1])
        laterals = [
            decoder.lateral_convs[0](decoder.fpn1(maps[0])),
            decoder.lateral_convs[1](decoder.fpn2(maps[1])),
        ]
    # the second map is added to the first, enlarged, and has the coarser ones in it
    enlarged = torch.nn.functional.interpolate(seen[1], (24, 20), mode='nearest')
    torch.testing.assert_close(seen[0] - enlarged, laterals[0], atol=1e-5, rtol=1e-5)
    assert laterals[1].shape == seen[1].shape


def test_decoder_passes_gradients_to_both_convolutions() -> None:
    decoder = FPN(12, 4, 8)
    maps = [torch.randn(2, 12, 4, 4) for _ in range(4)]
    decoder(maps, maps[-1]).sum().backward()
    for name in ('fpn1.4.weight', 'fpn1.4.bias', 'fpn2.1.weight', 'lateral_convs.0.weight'):
        assert decoder.get_parameter(name).grad is not None, name
