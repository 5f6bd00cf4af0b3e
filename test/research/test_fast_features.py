# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The frozen backbone by OpenVINO or ONNX Runtime gives what torch gives, or torch does it."""

from __future__ import annotations

from unittest.mock import Mock

import pytest
import torch
from torch import Tensor, nn

from research import fast_features as module
from research.fast_features import fast_features

torch.set_num_threads(1)


class Backbone(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, 2, 1)
        self.deep = nn.Conv2d(6, 8, 3, 2, 1)
        self.calls = 0

    def forward(self, images: Tensor) -> list[Tensor]:
        self.calls += 1
        fine = self.stem(images).relu()
        return [fine, self.deep(fine)]


class Fickle(Backbone):
    """A call after the export adds what the export has not seen."""

    def forward(self, images: Tensor) -> list[Tensor]:
        extra = 0.0 if torch.onnx.is_in_onnx_export() else 1.0
        return [maps + extra for maps in super().forward(images)]


@pytest.mark.parametrize('missing', [(), ('_openvino',), ('_openvino', '_onnxruntime')])
def test_equals_torch_for_any_batch_and_size(missing, monkeypatch) -> None:
    pytest.importorskip('onnx')
    for name in missing:
        monkeypatch.setattr(module, name, Mock(side_effect=ImportError('not here'), __name__=name))
    backbone = Backbone().eval()
    with torch.inference_mode():
        run = fast_features(backbone, torch.randn(1, 3, 32, 48))
        backbone.calls = 0
        for shape in ((1, 3, 32, 48), (4, 3, 32, 48), (2, 3, 24, 40)):
            images = torch.randn(shape)
            for got, wanted in zip(run(images), backbone(images), strict=True):
                torch.testing.assert_close(got, wanted, atol=1e-5, rtol=1e-5)
    # three calls are the test's own; one is the fallback for another size
    assert backbone.calls == (6 if len(missing) == 2 else 4)


def test_features_of_one_batch_survive_the_next() -> None:
    backbone = Backbone().eval()
    with torch.inference_mode():
        run = fast_features(backbone, torch.randn(1, 3, 32, 48))
        first = run(torch.randn(2, 3, 32, 48))
        copies = [maps.clone() for maps in first]
        run(torch.randn(2, 3, 32, 48))
    assert all(torch.equal(a, b) for a, b in zip(first, copies, strict=True))


def test_numbers_that_differ_leave_it_to_torch() -> None:
    backbone = Fickle().eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        run = fast_features(backbone, images)
        for got, wanted in zip(run(images), backbone(images), strict=True):
            torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize('missing', [(), ('_openvino_bfloat16',)])
def test_bfloat16_is_near_and_else_float32(missing, monkeypatch) -> None:
    pytest.importorskip('openvino')
    for name in missing:
        monkeypatch.setattr(module, name, Mock(side_effect=ImportError('not here'), __name__=name))
    backbone = Backbone().eval()
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        run = fast_features(backbone, images, bfloat16=True)
        for got, wanted in zip(run(images), backbone(images), strict=True):
            off = float((got - wanted).norm() / wanted.norm())
            assert off < 1e-5 if missing else off < 0.02


def test_bfloat16_numbers_that_differ_are_refused() -> None:
    images = torch.randn(2, 3, 32, 48)
    with torch.inference_mode():
        backbone = Fickle().eval()
        run = fast_features(backbone, images, bfloat16=True)
        for got, wanted in zip(run(images), backbone(images), strict=True):
            torch.testing.assert_close(got, wanted)


def test_a_backbone_in_training_mode_is_refused() -> None:
    with pytest.raises(ValueError, match='training mode'):
        fast_features(Backbone().train(), torch.randn(2, 3, 32, 48))
