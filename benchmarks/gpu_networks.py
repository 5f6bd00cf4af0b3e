# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Sections of the GPU suite about single networks and kernels; run them through gpu_suite.py."""

from __future__ import annotations

import importlib
from dataclasses import fields
from typing import Any

import torch
from gpu_common import Row, Setting, sam, uem
from uem_windows import plain_loop

from ood_perception.clustering import StreamingKMeans
from ood_perception.models.dinov2 import DINOv2


def matmul(setting: Setting) -> list[Row]:
    """Rate of one large float16 matrix product: what the backbone's rate is compared with."""
    side = setting.choose(8192, 64)
    a = setting.noise(side, side).half()
    ms = setting.milliseconds(lambda: a @ a)
    setting.matmul = 2 * side**3 / ms / 1e9
    return [Row(f'float16 matmul {side}', setting.matmul, 'TFLOP/s')]


def vit_flops(model: DINOv2, height: int, width: int) -> float:
    """Operations of one image: a block's projections 24 N D^2 and its attention 4 N^2 D."""
    tokens = (height // 14) * (width // 14) + model.num_prefix_tokens
    dim = model.embed_dim
    embed = 2 * (height // 14) * (width // 14) * 3 * 14 * 14 * dim
    return len(model.blocks) * (24.0 * tokens * dim**2 + 4.0 * tokens**2 * dim) + embed


@torch.inference_mode()
def backbone(setting: Setting) -> list[Row]:
    """DINOv2 ViT-B/14 at 518x1036 in float16: milliseconds, and the share of the matmul rate."""
    if not setting.matmul:
        matmul(setting)
    height, width = setting.choose((518, 1036), (56, 70))
    dinov2 = uem(setting).segmentor.backbone.dinov2
    flops = vit_flops(dinov2, height, width)
    indices = list(dinov2.out_indices)
    run = setting.compiled(lambda images: dinov2.patch_maps(images, indices))
    rows, best = [], 0.0
    for name, function in (('eager', dinov2.patch_maps), ('compiled', run)):
        for batch in setting.choose((1, 4, 8), (1, 2)):
            images = setting.noise(batch, 3, height, width)
            arguments: tuple[Any, ...] = (images, indices) if name == 'eager' else (images,)
            with setting.half():
                ms = setting.milliseconds(lambda f=function, a=arguments: f(*a))  # type: ignore[misc]
            rate = batch * flops / ms / 1e9
            best = max(best, rate / setting.matmul)
            rows.append(
                Row(f'DINOv2-B {name}, batch {batch}', ms, 'ms', note=f'{rate:.1f} TFLOP/s')
            )
    rows.append(Row('share of the float16 matmul rate, best', 100 * best, '%', '>= 40'))
    return rows


@torch.inference_mode()
def sam_encoder(setting: Setting) -> list[Row]:
    """Image encoder of SAM ViT-B at 1024x1024 in float16."""
    encoder = sam(setting).image_encoder
    images = setting.noise(1, 3, encoder.img_size, encoder.img_size)
    rows = []
    with setting.half():
        for name, run in (('eager', encoder), ('compiled', setting.compiled(encoder))):
            ms = setting.milliseconds(lambda f=run: f(images))  # type: ignore[misc]
            bound = '<= 15' if name == 'compiled' else ''
            rows.append(Row(f'SAM ViT-B encoder, {name}', ms, 'ms', bound))
    return rows


@torch.inference_mode()
def dcnv3(setting: Setting) -> list[Row]:
    """The Triton kernel against the operator in PyTorch, at InternImage-L's stages."""
    from ood_perception.models.dcnv3 import sample_point_by_point
    from ood_perception.models.dcnv3_triton import sample_with_triton

    rows = []
    stages = setting.choose(
        ((128, 256, 160, 10), (64, 128, 320, 20), (32, 64, 640, 40), (16, 32, 1280, 80)),
        ((3, 5, 16, 1),),
    )
    for height, width, channels, groups in stages:
        for dtype in (torch.float32, torch.float16):
            value = setting.noise(1, height, width, channels).to(dtype)
            offset = setting.noise(1, height, width, groups * 18).to(dtype)
            mask = setting.noise(1, height, width, groups * 9).sigmoid().to(dtype)
            data = (value, offset, mask, groups, 1.0)
            gap = sample_with_triton(*data).float() - sample_point_by_point(*data).float()
            ours = setting.milliseconds(lambda d=data: sample_with_triton(*d))  # type: ignore[misc]
            torchs = setting.milliseconds(lambda d=data: sample_point_by_point(*d))  # type: ignore[misc]
            name = f'DCNv3 {height}x{width}x{channels} {dtype}'.replace('torch.', '')
            note = f'{ours:.3f} and {torchs:.3f} ms, largest difference {gap.abs().max():.1e}'
            rows.append(Row(f'{name}: Triton over PyTorch', torchs / ours, 'x', '>= 3', note))
    return rows


@torch.inference_mode()
def windows(setting: Setting) -> list[Row]:
    """UEM's windows on a frame of 1024x2048: batches of windows, and the cheaper choices."""
    height, width = setting.choose((1024, 2048), (90, 104))
    images = setting.noise(1, 3, height, width)
    rows = []
    with setting.half():
        model = uem(setting, mode='sliding')
        loop = setting.milliseconds(lambda: plain_loop(model, images, 2))
        rows.append(Row('official two-pass loop', loop, 'ms'))
        for batch in setting.choose((1, 4, 8, 15), (1, 2)):
            model.window_batch = batch
            ms = setting.milliseconds(lambda: model.sliding(images))
            rows.append(Row(f'full, batches of {batch}', ms, 'ms', note=f'{loop / ms:.2f}x'))
        model.stride = setting.choose((259, 518), (28, 35))
        part = images[:, :, : height // 14 * 14, : width // 14 * 14]
        cheaper = {'coarse': lambda: model.sliding(images), 'single': lambda: model.single(part)}
        for name, run in cheaper.items():
            ms = setting.milliseconds(run)
            rows.append(Row(name, ms, 'ms', note=f'{loop / ms:.2f}x'))
    return rows


@torch.no_grad()
def kmeans(setting: Setting) -> list[Row]:
    """One frame of streaming K-means, as it is and as a CUDA graph, beside other libraries."""
    rows = []
    for dim in setting.choose((384, 768), (8,)):
        for clusters in setting.choose((16, 32, 64), (4,)):
            tokens = setting.noise(1, setting.choose(2738, 40), dim)
            # no look for scene cuts: a graph cannot start afresh
            ours = StreamingKMeans(clusters, cut_ratio=0.0)
            ours.step(tokens)
            name = f'{tokens.shape[1]} tokens of {dim}, {clusters} clusters'
            rows.append(Row(name, setting.milliseconds(lambda: ours.step(tokens)), 'ms'))  # noqa: B023
            ms = setting.milliseconds(captured(ours, tokens))
            rows.append(Row(f'{name}, in a CUDA graph', ms, 'ms', '<= 1'))
            for library, function in peers(tokens, clusters).items():
                what = f'{name}, {library}, 10 iterations'
                try:
                    rows.append(Row(what, setting.milliseconds(function), 'ms'))
                except Exception as error:  # a library of others must not end the section
                    rows.append(Row(what, float('nan'), 'ms', note=f'failed: {error}'))
    return rows


def captured(ours: StreamingKMeans, tokens: torch.Tensor) -> Any:
    """One step on fixed tensors, the stream's state updated in place, as a CUDA graph's replay."""
    state = ours._states['0']
    values = {field.name: getattr(state, field.name) for field in fields(state)}
    fixed = {k: v.clone() for k, v in values.items() if isinstance(v, torch.Tensor)}

    def step() -> torch.Tensor:
        for name, tensor in fixed.items():
            setattr(state, name, tensor)
        ids = ours.step(tokens)
        for name, tensor in fixed.items():
            tensor.copy_(getattr(ours._states['0'], name))
        return ids

    if not tokens.is_cuda:
        return step
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph.replay


def peers(tokens: torch.Tensor, clusters: int) -> dict[str, Any]:
    """Other K-means on a GPU that are installed, each cold, 10 iterations."""
    found: dict[str, Any] = {}
    try:
        other = importlib.import_module('fast_pytorch_kmeans')
        found['fast_pytorch_kmeans'] = lambda: other.KMeans(
            clusters, max_iter=10, tol=0, mode='euclidean'
        ).fit_predict(tokens[0])
    except ImportError:
        pass
    try:
        flash = importlib.import_module('flash_kmeans')
        half = tokens.half()
        found['flash-kmeans'] = lambda: flash.batch_kmeans_Euclid(half, clusters, max_iters=10)
    except ImportError:
        pass
    return found


def training(setting: Setting) -> list[Row]:
    """Stage 2 of training, the UEM on frozen DINOv2-B, at 518x1036: images per second."""
    from ood_training.parts import split
    from ood_training.presets import Stage
    from ood_training.uem import UemTask

    if not setting.matmul:
        matmul(setting)
    height, width = setting.choose((518, 1036), (56, 70))
    model = uem(setting)
    task = UemTask(split(model), Stage()).train()
    trained = [p for p in task.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4)
    flops = vit_flops(model.segmentor.backbone.dinov2, height, width)
    rows = []
    for count in setting.choose((2, 8, 16), (1,)):
        noise = setting.noise(count, 3, height, width)
        batch = {'image': (64 * noise + 128).clamp(0, 255).to(torch.uint8)}
        batch['label'] = torch.where(noise[:, 0] > 1, 254, 0)

        def step(batch: dict[str, torch.Tensor] = batch) -> None:
            with setting.half():
                loss = task(batch)['loss']
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()

        rate = 1e3 * count / setting.milliseconds(step)
        share = 100 * flops * rate / 1e12 / setting.matmul
        note = f'the backbone alone uses {share:.1f} % of the matmul rate'
        rows.append(Row(f'stage 2, DINOv2-B, batch {count}', rate, 'images/s', note=note))
    return rows
