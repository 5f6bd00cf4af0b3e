# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Every shipped network as ONNX: ONNX Runtime says what eager says, at any batch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from ood_perception.checkpoints import load_checkpoint
from ood_perception.checkpoints.store import resolve
from ood_perception.engines import create_engine
from ood_perception.engines.export import OPSET, TupleOutput, export_onnx, takes_any_batch
from ood_perception.masks import create_mask_model, create_prompts
from ood_perception.masks.sam import SamMaskModel
from ood_perception.models import create_model
from ood_perception.models.heads import fold

from small_models import UEM, SmallSegmentor, tiny_sam

onnx = pytest.importorskip('onnx')
pytest.importorskip('onnxscript')
onnxruntime = pytest.importorskip('onnxruntime')

INTERNIMAGE = {'channels': 16, 'groups': (1, 2, 4, 8), 'head_channels': 8, 'auxiliary': False}


def compact() -> nn.Module:
    model = create_model('compact')
    load_checkpoint(model, resolve('package:compact.safetensors'))
    return model


SEGMENTORS: dict[str, tuple[Callable[[], nn.Module], tuple[int, int], bool]] = {
    'compact': (compact, (64, 96), False),
    **{f'uem_{form}': (lambda form=form: create_model(f'uem_{form}', **UEM), (56, 84), False)
       for form in ('dd', 'gd', 'gg')},
    'sliding': (
        lambda: create_model('uem_dd', mode='sliding', window=(28, 42), stride=(28, 42), **UEM),
        (28, 84),
        False,
    ),
    'dinov2': (
        lambda: create_model(
            'dinov2_vits14_reg', embed_dim=24, depth=1, num_heads=2, table_size=56,
            out_indices=(0,),
        ),
        (56, 84),
        True,
    ),
    'dinov3': (
        lambda: create_model(
            'dinov3_vits16', embed_dim=24, depth=1, num_heads=2, out_indices=(0,)
        ),
        (64, 96),
        True,
    ),
    'internimage': (
        lambda: create_model('internimage_t_upernet', depths=(1, 1, 1, 1), **INTERNIMAGE),
        (64, 96),
        False,
    ),
}  # fmt: skip


def check(network: nn.Module, path: Path, *batches: tuple[Tensor, ...]) -> None:
    """ONNX Runtime gives what eager gives, within 1e-4 of the largest output."""
    graph = onnx.load(path)
    assert graph.opset_import[0].version == OPSET
    session = onnxruntime.InferenceSession(path, providers=['CPUExecutionProvider'])
    names = [entry.name for entry in session.get_inputs()]
    for batch in batches:
        with torch.no_grad():
            want = network(*batch)
        fed = {name: x.numpy() for name, x in zip(names, batch, strict=True)}
        wanted = [want] if isinstance(want, Tensor) else want
        for a, b in zip(session.run(None, fed), wanted, strict=True):
            np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-4 * float(b.abs().max()))


SLOW = ('compact', 'internimage', 'sliding', 'uem_dd', 'uem_gd', 'uem_gg')
"""What takes longer than the small networks of the others."""


@pytest.mark.parametrize(
    'name', [pytest.param(n, marks=[pytest.mark.slow] if n in SLOW else []) for n in SEGMENTORS]
)
def test_segmentors(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build, size, features = SEGMENTORS[name]
    network = TupleOutput(fold(build().eval()), features)
    images = torch.randn(3, 3, *size)
    export_onnx(network, images[:1], tmp_path / 'model.onnx')
    counts = (1, 3) if takes_any_batch(network) else (1,)
    check(network, tmp_path / 'model.onnx', *((images[:count],) for count in counts))


@pytest.mark.parametrize('name', ['prompts', 'masks'])
def test_the_small_networks_of_the_masks_stage(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    if name == 'prompts':
        network, shape = create_prompts('score_detector').network, (2, 4, 64, 96)
    else:
        network, shape = create_mask_model('compact').head, (2, 5, 96, 96)
    x = torch.randn(shape)
    export_onnx(network, x, tmp_path / 'model.onnx')
    check(network, tmp_path / 'model.onnx', (x,), (x[:1],))


class SamDecoder(nn.Module):
    """Masks of boxes, each with its frame's embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.model = SamMaskModel(tiny_sam())

    def forward(self, embeddings: Tensor, prompts: Tensor) -> Tensor:
        return self.model._decode(embeddings, prompts, (72, 96))


@pytest.mark.slow
def test_the_image_encoder_of_sam(tmp_path: Path) -> None:
    encoder, images = tiny_sam().image_encoder, torch.randn(2, 3, 128, 128)
    export_onnx(encoder, images, tmp_path / 'model.onnx')
    check(encoder, tmp_path / 'model.onnx', (images,), (images[:1],))


@pytest.mark.slow
def test_the_decoder_of_sam(tmp_path: Path) -> None:
    decoder, embeddings = SamDecoder(), torch.randn(3, 32, 8, 8)
    prompts = torch.tensor([[8.0, 9, 30, 50], [0, 0, 96, 72], [40, 20, 41, 22]])
    inputs = (embeddings, prompts)
    export_onnx(decoder, inputs, tmp_path / 'model.onnx')
    check(decoder, tmp_path / 'model.onnx', inputs, tuple(x[:1] for x in inputs))


@pytest.mark.slow
def test_internimage_t_is_a_graph_that_an_engine_can_build(tmp_path: Path) -> None:
    model = create_model('internimage_t_upernet', **INTERNIMAGE)
    images = torch.zeros(1, 3, 64, 64)
    export_onnx(TupleOutput(model.eval(), False), images, tmp_path / 'model.onnx')
    nodes = onnx.load(tmp_path / 'model.onnx', load_external_data=False).graph.node
    assert sum(node.op_type == 'GridSample' for node in nodes) == 30  # one a layer
    assert len(nodes) <= 1500


@torch.inference_mode()
def test_frames_go_on_while_a_network_is_exported() -> None:
    """They run the modules that torch.export looks at, in another thread."""
    model = SmallSegmentor().eval()
    engine = create_engine('onnxruntime', model, torch.device('cpu'), live=True)
    images = torch.randn(1, 3, 32, 48)
    want, calls = model(images).logits, 0
    while engine.name != 'onnxruntime':
        assert engine.faults() == []
        torch.testing.assert_close(engine(images).logits, want)
        calls += 1
    assert calls > 10
    torch.testing.assert_close(engine(images).logits, want, atol=1e-4, rtol=1e-4)
    assert type(next(model.parameters()).data) is torch.Tensor
    assert engine.events == []
