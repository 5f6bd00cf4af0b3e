# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What only a GPU can show: no host synchronisation, the same numbers as on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from ood_perception.engines import create_engine
from ood_perception.frames.colour import RawFrame
from ood_perception.frames.transfer import Uploader, download, normalise
from ood_perception.scores import create_score
from ood_perception.scores.calibration import Calibration

from small_models import SmallSegmentor

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason='no CUDA device'),
]


@pytest.fixture
def device() -> torch.device:
    return torch.device('cuda')


def frame(seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (48, 64, 3), generator=generator, dtype=torch.uint8)


def test_upload_equals_the_cpu(device: torch.device) -> None:
    cpu, gpu = Uploader(torch.device('cpu')), Uploader(device)
    for seed in range(5):  # more frames than pinned buffers
        one = frame(seed)
        raw = RawFrame(one.reshape(-1).numpy(), 48, 64, 192, 'bgr8')
        for size in ((48, 64), (24, 40)):
            got = gpu([one, raw], size).cpu().int()
            assert (got - cpu([one, raw], size).int()).abs().max() <= 1


def test_download_is_exact(device: torch.device) -> None:
    tensors = [
        torch.randn(3, 5),
        torch.randint(0, 256, (7, 9), dtype=torch.uint8),
        torch.randint(0, 60000, (4, 4), dtype=torch.int32),
        torch.zeros(0, 4),
    ]
    for got, want in zip(download([t.to(device) for t in tensors]), tensors, strict=True):
        np.testing.assert_array_equal(got, want.numpy())


@pytest.mark.parametrize('engine', ['eager', 'compiled'])
@torch.inference_mode()
def test_no_host_synchronisation_between_upload_and_download(
    device: torch.device, engine: str
) -> None:
    model = SmallSegmentor()
    run = create_engine(engine, model, device, torch.bfloat16)
    score = create_score('llr').to(device)
    calibration = Calibration().to(device)
    upload = Uploader(device)
    for _ in range(3):  # warm up
        score(run(normalise(upload([frame()], (48, 64)), model.spec)), (48, 64), ['0'])
    images = upload([frame()], (48, 64))
    torch.cuda.set_sync_debug_mode('error')
    try:
        heat = calibration(score(run(normalise(images, model.spec)), (48, 64), ['0']))
        result = (heat * 255).to(torch.uint8)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    assert result.shape == (1, 48, 64)


@torch.inference_mode()
def test_half_precision_stays_close(device: torch.device) -> None:
    model = SmallSegmentor().eval()
    x = torch.randn(2, 3, 48, 64)
    want = model(x).logits
    got = create_engine('eager', model, device, torch.float16)(x.to(device)).logits.float().cpu()
    assert (got - want).abs().max() <= 2e-2 * want.abs().max()


def test_triton_kernel_equals_the_operator(device: torch.device) -> None:
    from ood_perception.models.dcnv3 import sample_point_by_point
    from ood_perception.models.dcnv3_triton import sample_with_triton

    value = torch.randn(2, 33, 47, 64, device=device)
    offset = 3 * torch.randn(2, 33, 47, 72, device=device)
    mask = torch.rand(2, 33, 47, 36, device=device)
    got = sample_with_triton(value, offset, mask, 4, 2.0)
    want = sample_point_by_point(value, offset, mask, 4, 2.0)
    torch.testing.assert_close(got, want, atol=1e-4, rtol=0)
