# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Sections of the GPU suite about whole frames; run them through gpu_suite.py."""

from __future__ import annotations

import dataclasses
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from gpu_common import FixedBoxes, Row, Setting, sam, uem

from ood_perception.assembly import semantic_map
from ood_perception.building import load_segmentor
from ood_perception.engines import create_engine
from ood_perception.engines.measure import largest_difference
from ood_perception.frames.colour import RawFrame
from ood_perception.frames.timing import StageTimer
from ood_perception.frames.transfer import Uploader, as_frame, normalise
from ood_perception.masks.rcnn_prompts import RCNNPrompts
from ood_perception.masks.sam import SamMaskModel
from ood_perception.models.output import SegmentorOutput
from ood_perception.outlining import Outliner
from ood_perception.pipeline import Pipeline
from ood_perception.profile import ImageConfig, Profile, ProfileError, StageConfig
from ood_perception.scores import create_score
from ood_simulation.proving_ground import ProvingGround


def drive(width: int, height: int, count: int = 8) -> list[np.ndarray]:
    """Rendered frames, uint8 (height, width, 3)."""
    ground = ProvingGround(seed=1000, width=width, height=height)
    return [np.ascontiguousarray(ground.frame(5 * i).image) for i in range(count)]


def played(pipeline: Pipeline, frames: list[np.ndarray], cameras: int = 1) -> Callable[[], object]:
    """Give a function that runs the next frames, the same for all cameras, through a pipeline."""
    place = iter(range(1_000_000))

    def step() -> object:
        now = next(place)
        batch = [frames[(now + i) % len(frames)] for i in range(cameras)]
        return pipeline(batch, streams=[str(i) for i in range(cameras)])

    return step


def full_frame(setting: Setting) -> list[Row]:
    """Frames of 1024x2048 through dinov2_uem_gd, one pass, S2M's boxes and SAM ViT-B masks."""
    profile = dataclasses.replace(
        Profile.load('dinov2_uem_gd'),
        prompts=StageConfig(),
        mask_model=StageConfig(),
    )
    try:
        segmentor, weights = (None if setting.tiny else load_segmentor(profile)), 'official'
    except ProfileError:
        segmentor = None
    if segmentor is None:
        segmentor, weights = uem(setting), 'random'
    width, height = setting.choose((2048, 1024), (96, 64))
    frames = drive(width, height)
    prompts = RCNNPrompts().to(setting.device)
    if setting.tiny:
        prompts.detector.rpn._post_nms_top_n['testing'] = 16
    rows = []
    own, tiny = ImageConfig(short_side=0, max_long_side=0), ImageConfig(56, 84)
    for name, image in (
        ('518x1036, the profile', setting.choose(profile.image, tiny)),
        ('the size of the frame', own),
    ):
        for compiled in (False, True):
            pipeline = Pipeline(
                dataclasses.replace(profile, image=image),
                segmentor,
                setting.device,
                'compiled' if compiled and not setting.tiny else 'eager',
            )
            mask_model = SamMaskModel(sam(setting), precision='bfloat16').to(setting.device)
            if compiled:
                mask_model.sam.image_encoder = setting.compiled(mask_model.sam.image_encoder)
            # built with random weights: boxes at random, so five fixed ones take their place
            pipeline.outliner = Outliner(
                FixedBoxes(prompts), mask_model, (), pipeline.notes.append
            )
            step = played(pipeline, frames)
            ms = setting.milliseconds(step)
            stages = step()[0].timings  # type: ignore[index]
            how = 'compiled' if compiled else 'eager'
            note = f'{weights} UEM, random SAM and S2M; ' + ', '.join(
                f'{stage} {t:.1f}' for stage, t in stages.items()
            )
            what = f'{width}x{height} at {name}, {how}'
            rows.append(Row(what, 1e3 / ms, 'frames/s', '>= 30' if compiled else '', note))
            pipeline.close()
    return rows


def compact_pipeline(setting: Setting, engine: str = 'auto') -> Pipeline:
    """Build the shipped profile."""
    engine = setting.choose(engine, 'eager')
    return Pipeline.from_profile('compact', str(setting.device), engine)


def compact(setting: Setting) -> list[Row]:
    """The compact profile with its masks, engine chosen by measurement."""
    rows = []
    for width, height in setting.choose(((640, 360), (2048, 1024)), ((64, 48),)):
        pipeline = compact_pipeline(setting)
        ms = setting.milliseconds(step := played(pipeline, drive(width, height)))
        stages = step()[0].timings  # type: ignore[index]
        note = f'{pipeline.engine.name}; ' + ', '.join(f'{k} {t:.1f}' for k, t in stages.items())
        rows.append(Row(f'compact at {width}x{height}', 1e3 / ms, 'frames/s', '>= 200', note))
        pipeline.close()
    return rows


def cameras(setting: Setting) -> list[Row]:
    """Four cameras in one batch against four calls."""
    width, height = setting.choose((640, 360), (64, 48))
    pipeline = compact_pipeline(setting)
    frames = drive(width, height)
    one = setting.milliseconds(played(pipeline, frames))
    pipeline.close()
    pipeline = compact_pipeline(setting)  # 'auto' measures at the batch it is given first
    four = setting.milliseconds(played(pipeline, frames, 4))
    pipeline.close()
    note = f'{one:.2f} ms alone, {four:.2f} ms for four, compact at {width}x{height}'
    return [Row('four cameras batched over separate', 4 * one / four, 'x', '>= 2.5', note)]


@torch.inference_mode()
def syncs(setting: Setting) -> list[Row]:
    """Host synchronisations of each stage between upload and download, compact profile."""
    pipeline = compact_pipeline(setting, 'eager')
    width, height = setting.choose((640, 360), (64, 48))
    frames = drive(width, height)
    played(pipeline, frames)()
    size = pipeline.network_size(height, width)
    images = pipeline._upload([as_frame(frames[0])], size)
    pipeline.outliner.prompts = FixedBoxes(pipeline.outliner.prompts)
    found: dict[str, Any] = {}

    def network() -> None:
        found['output'] = pipeline.engine(normalise(images, pipeline.spec))

    def heatmap() -> None:
        found['score'] = torch.nan_to_num(pipeline.score(found['output'], size, ['0']).float())
        found['heat'] = pipeline.calibration(found['score'])
        found['semantic'] = semantic_map(found['output'], size, exact=True)

    def masks() -> None:
        parts = [found[k] for k in ('score', 'heat', 'semantic')]
        rest = found['output'].detections, StageTimer(pipeline.device), lambda boxes: boxes
        for outcome in pipeline.outliner(images, *parts, *rest):
            if isinstance(outcome, Exception):
                raise outcome

    rows = []
    for name, stage in (('network', network), ('score and heatmap', heatmap), ('masks', masks)):
        stage()
        with warnings.catch_warnings(record=True) as seen:
            warnings.simplefilter('always')
            if not setting.tiny:
                torch.cuda.set_sync_debug_mode('warn')
            try:
                stage()
            finally:
                if not setting.tiny:
                    torch.cuda.set_sync_debug_mode('default')
        places = [
            f'{w.filename.rsplit("/", 1)[-1]}:{w.lineno}'
            for w in seen
            if 'synchronizing CUDA operation' in str(w.message)
        ]
        note = ' '.join(dict.fromkeys(places))
        rows.append(Row(f'synchronisations, {name}', len(places), '', '<= 0', note))
    pipeline.close()
    return rows


@torch.inference_mode()
def engines(setting: Setting) -> list[Row]:
    """Each engine on the compact network, float16 where it can, and its distance to float32."""
    height, width = setting.choose((360, 640), (64, 96))
    rows = []
    reference: SegmentorOutput | None = None
    names = [('eager', torch.float32), ('eager', torch.float16), ('compiled', torch.float16)]
    names += [('onnxruntime', torch.float32), ('tensorrt', torch.float16)]
    for name, precision in setting.choose(names, names[:1]):
        model = load_segmentor(Profile.load('compact'))
        notes: list[str] = []
        run = create_engine(name, model, setting.device, precision, False, notes.append)
        images = setting.noise(1, 3, height, width)
        ms = setting.milliseconds(lambda f=run, x=images: f(x))  # type: ignore[misc]
        output = run(images)
        reference = reference or output
        gap = largest_difference(output, reference)
        note = '; '.join([f'differs from float32 by {gap:.1e} of the range', *notes])
        kind = str(precision).replace('torch.', '')
        rows.append(Row(f'compact network, {name} {kind} (ran {run.name})', ms, 'ms', note=note))
    return rows


@torch.inference_mode()
def transfer(setting: Setting) -> list[Row]:
    """Upload of a frame of 1024x2048 by its encoding; pinned ring, pageable, registered memory."""
    height, width = setting.choose((1024, 2048), (32, 64))
    rgb = torch.randint(0, 256, (height, width, 3), dtype=torch.uint8)
    upload = Uploader(setting.device)
    rows = []
    for encoding, step in (('rgb8', 3 * width), ('yuyv', 2 * width), ('nv12', width)):
        lines = height * 3 // 2 if encoding == 'nv12' else height
        raw = RawFrame(rgb.flatten()[: lines * step], height, width, step, encoding)
        ms = setting.milliseconds(lambda r=raw: upload([r], (height, width)))  # type: ignore[misc]
        rows.append(Row(f'upload {encoding} and conversion', ms, 'ms'))
    rows.append(Row('pageable copy', setting.milliseconds(lambda: rgb.to(setting.device)), 'ms'))
    if not setting.tiny:
        start = setting.milliseconds(lambda: _registered(rgb, setting.device))
        rows.append(Row('copy with cudaHostRegister of the message', start, 'ms'))
    return rows


def _registered(frame: torch.Tensor, device: torch.device) -> None:
    runtime: Any = torch.cuda.cudart()
    runtime.cudaHostRegister(frame.data_ptr(), frame.numel(), 0)
    frame.to(device, non_blocking=True)
    torch.cuda.synchronize()
    runtime.cudaHostUnregister(frame.data_ptr())


@torch.inference_mode()
def epilogue(setting: Setting) -> list[Row]:
    """The likelihood ratio at the frame's size: as written, and fused by the compiler."""
    height, width = setting.choose((1024, 2048), (32, 64))
    logits, ood = setting.noise(1, 19, height // 4, width // 4), setting.noise(1, 2, 73, 146)
    output = SegmentorOutput(logits=logits, ood=ood)
    score: Any = create_score('llr').to(setting.device)

    def plain(logits: torch.Tensor, ood: torch.Tensor) -> torch.Tensor:
        return score(SegmentorOutput(logits=logits, ood=ood), (height, width), ['0'])

    fused = setting.compiled(plain)
    gap = (fused(logits, ood) - plain(logits, ood)).abs().max()
    eager = setting.milliseconds(lambda: score(output, (height, width), ['0']))
    ms = setting.milliseconds(lambda: fused(logits, ood))
    return [
        Row('likelihood ratio, as written', eager, 'ms'),
        Row('likelihood ratio, compiled', ms, 'ms', note=f'largest difference {gap:.1e}'),
    ]
