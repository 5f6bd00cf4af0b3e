# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of the small networks around the segmentor on the score maps of a profile.

Scenes are made once: held-in objects pasted on frames, and frames of the proving ground, each with
the score map that the profile's own model gives. The detection head and the light prompts learn
where objects are, the mask head what they look like; all are written with their model cards.
"""

from __future__ import annotations

import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

from ood_perception.checkpoints.store import sha256_of
from ood_perception.masks import create_mask_model, create_prompts
from ood_perception.profile import Profile, StageConfig
from ood_simulation.proving_ground import SMALLEST
from ood_training.checkpointing import TrainingError
from ood_training.finishing import write_card
from research.detection_head import detecting_prompts, proposed, train_detection_head
from research.mask_head import train_mask_head
from research.mask_validation import validate
from research.prompts import train_prompts
from research.rendered import drawn
from research.score_scenes import (
    Scene,
    compose,
    load_frames,
    load_objects,
    middle,
    photographed,
    spoil,
)

Progress = Callable[[str, float], None]
"""Called with what is being made and the share done 0..1."""

TRAINING_SEED = 400_000
"""
First seed of the drives that are learnt from: none that the network saw in its own training, where
its score is better than anywhere else and lacks false alarms that are to be rejected.
"""

VALIDATION_SEED = 500_000
"""First seed of the drives that are only validated on."""

FRAMES_PER_DRIVE = 4
"""Scenes that each drive gives: most of its time goes into its first frame."""

SIZE = 576, 432
"""Width and height of the scenes: the size at which the profile `compact` looks for objects."""


@dataclass(frozen=True)
class MaskData:
    """
    What the masks stage learns from.

    Attributes:
        frames: folder with an INDEX.csv (columns image, sequence) of frames without unknowns;
            none = nothing is pasted.
        objects: folder of RGBA cut-outs with an INDEX.csv, that are pasted.
        profile: name or path of the profile whose score maps are learnt from; '' = corrupted
            truth only.
        leave_out: sequence of the frames that is kept for validation.
        scenes: pasted scenes to make.
        drives: crowded drives of the proving ground, `FRAMES_PER_DRIVE` scenes each.
        photographs: folder that holds dhcn_indoor and coco_context, real unknown things in place;
            none = without.
        photographed: scenes of those to make, at most.
        free: only photographs whose licence lets a company use the result.
        validation: scenes of the frames and objects left out, as many of other drives, and half
            as many photographs, to measure on at the end; 0 = none.
        spoilt: share 0..1 of the pasted scenes whose score map is spoilt truth, so that other
            scores than the profile's are understood too.
        seed: of all chance.

    """

    frames: Path | None
    objects: Path | None
    profile: str = 'compact'
    leave_out: str = ''
    scenes: int = 400
    drives: int = 150
    photographs: Path | None = None
    photographed: int = 300
    free: bool = False
    validation: int = 40
    spoilt: float = 0.25
    seed: int = 0


def make_scenes(
    data: MaskData, progress: Progress | None = None, held_out: bool = False
) -> list[Scene]:
    """
    Make the scenes of `data` with their score maps.

    Args:
        data: what to make them of.
        progress: see `Progress`.
        held_out: make those for validation instead.

    Returns:
        Scenes of `SIZE`.

    Raises:
        TrainingError: no frames or objects, or files that cannot be read.
        ProfileError: a profile that cannot be built.

    """
    pasted, drives, spoilt = data.scenes, data.drives, data.spoilt
    most = data.photographed
    first_seed = TRAINING_SEED + data.seed
    if held_out:
        pasted, drives, spoilt = data.validation, -(-data.validation // FRAMES_PER_DRIVE), 0.0
        most = data.validation // 2
        first_seed = VALIDATION_SEED + data.seed
    (width, height), frames, objects = SIZE, [], []
    if data.frames is not None and data.objects is not None:
        if held_out and data.leave_out:
            frames = load_frames(data.frames, only=data.leave_out)
        else:
            frames = load_frames(data.frames, without=data.leave_out)
        if not frames:
            which = 'with' if held_out else 'outside of'
            raise TrainingError(
                f'{data.frames}: no frames {which} the sequence {data.leave_out!r}'
            )
        objects = load_objects(data.objects, held_out)
        frames = [middle(frame, *SIZE) for frame in frames]
    else:
        pasted = 0
    rng = np.random.default_rng(first_seed)
    judge = _judge(data.profile) if data.profile else None
    propose = create_prompts('components')
    real = []
    if data.photographs is not None:
        real = photographed(data.photographs, width, height, held_out, data.free)
        real = [real[i] for i in rng.permutation(len(real))[:most]]
    scenes = []
    count = pasted + drives * FRAMES_PER_DRIVE + len(real)
    rendered = drive_scenes(range(first_seed, first_seed + drives), width, height)
    for index in range(count):
        if index < pasted:
            image, labels = compose(_any(frames, rng), objects, rng)
        elif index < pasted + drives * FRAMES_PER_DRIVE:
            image, labels = next(rendered)
        else:
            image, labels = real[index - pasted - drives * FRAMES_PER_DRIVE]
        plain = judge is None or (index < pasted and rng.random() < spoilt)
        probability = spoil(labels, rng) if judge is None or plain else judge(image)
        maps = torch.from_numpy(probability.astype(np.float32))[None]
        found = propose(torch.from_numpy(image).permute(2, 0, 1)[None], maps, maps)
        scenes.append(
            Scene(
                image,
                labels,
                probability.astype(np.float16),
                found.boxes[0][found.valid[0]].numpy(),
            )
        )
        if progress is not None:
            progress('validation scenes' if held_out else 'scenes', (index + 1) / count)
    return scenes


def drive_scenes(seeds: range, width: int, height: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """
    Frames of crowded drives of the proving ground, `FRAMES_PER_DRIVE` of each.

    Yields image uint8 (H, W, 3) and labels uint8 (H, W), see `Scene`.
    """
    if len(seeds) < 4:  # less work than starting processes
        for seed in seeds:
            yield from _drive(seed, width, height)
        return
    # Not forked: PyTorch's threads run here already.
    with ProcessPoolExecutor(2, get_context('spawn'), cv2.setNumThreads, (1,)) as pool:
        for frames in pool.map(partial(_drive, width=width, height=height), seeds):
            yield from frames


def _drive(seed: int, width: int, height: int) -> list[tuple[np.ndarray, np.ndarray]]:
    found = []
    for frame in drawn(seed, FRAMES_PER_DRIVE, height, width, crowded=True):
        labels = np.zeros((height, width), np.uint8)
        values, sizes = np.unique(frame.instances[frame.instances > 0], return_counts=True)
        for number, value in enumerate(values[sizes >= SMALLEST][:254], 1):
            labels[frame.instances == value] = number
        found.append((frame.image, labels))
    return found


def train_masks(
    data: MaskData,
    output: Path,
    prompts_steps: int = 5000,
    head_steps: int = 3500,
    detection_steps: int = 0,
    command: str = '',
    start: Path | None = None,
    scenes: Sequence[Scene] | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """
    Train the detection head, the light prompts and the mask head.

    Args:
        data: what to learn from.
        output: folder of detection_head.safetensors, light_prompts.safetensors,
            mask_head.safetensors and their cards.
        prompts_steps: of the prompts' training; 0 leaves them out.
        head_steps: of the mask head's training; 0 leaves it out.
        detection_steps: of the detection head's training; 0 leaves it out.
        command: the command line, for the cards.
        start: folder with weights of all to start from, none = random.
        scenes: made before, none = make them.
        progress: see `Progress`.

    Returns:
        Paths of the weights by name.

    Raises:
        TrainingError: data that cannot be read, or weights that cannot be written.
        ProfileError: a profile that cannot be built.

    """
    if scenes is None:
        scenes = make_scenes(data, progress)
    held_out = make_scenes(data, progress, held_out=True) if data.validation else []
    written: dict[str, Path] = {}
    detection = partial(train_detection_head, profile=data.profile or 'compact')
    jobs: tuple[tuple[str, Callable[..., Any], int], ...] = (
        ('detection_head', detection, detection_steps),
        ('light_prompts', train_prompts, prompts_steps),
        ('mask_head', train_mask_head, head_steps),
    )
    for name, train, steps in jobs:
        if steps <= 0:
            continue
        path = output / f'{name}.safetensors'
        before = start / path.name if start is not None else None
        if name == 'mask_head' and data.profile:
            scenes = proposed(scenes, data.profile, written.get('detection_head'))
        train(scenes, path, steps, seed=data.seed, start=before)
        written[name] = path
        numbers: dict[str, Any] = {'scenes': len(scenes), 'steps': steps}
        if held_out:
            found = _validated(written, held_out, data.profile or 'compact')
            numbers |= {f'validation {k}': v for k, v in found.items()}
        card(path, numbers, _sources(data), asdict(data), command)
    return written


def _any(frames: Sequence[np.ndarray], rng: np.random.Generator) -> np.ndarray:
    return frames[int(rng.integers(len(frames)))]


def _judge(profile: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from image to calibrated probability (H, W) under a profile."""
    from ood_perception.pipeline import Pipeline

    bare = replace(Profile.load(profile), prompts=StageConfig(), mask_model=StageConfig())
    pipeline = Pipeline.from_profile(bare)

    def judge(image: np.ndarray) -> np.ndarray:
        (result,) = pipeline(image, wants=('score',))
        score = torch.from_numpy(result.score).to(pipeline.device)
        return pipeline.calibration(score).cpu().numpy()

    return judge


def _validated(
    written: dict[str, Path], scenes: Sequence[Scene], profile: str
) -> dict[str, float]:
    """Figures of what was written last: prompts with the shipped mask head, or a new head."""
    if 'mask_head' in written:
        head = create_mask_model('compact', weights=str(written['mask_head']))
        return validate(scenes, create_prompts('components'), head)
    if 'light_prompts' in written:
        prompts: Any = create_prompts('score_detector', weights=str(written['light_prompts']))
    else:
        prompts = detecting_prompts(profile, str(written['detection_head']))
    numbers = validate(scenes, prompts, create_mask_model('compact'))
    return {k: v for k, v in numbers.items() if 'mask' not in k and k != 'matched_iou'}


def _sources(data: MaskData) -> list[dict[str, Any]]:
    """What a training has seen, for the card."""
    sources: list[dict[str, Any]] = []
    if data.frames is not None and data.objects is not None:
        sources += [
            {'frames': data.frames.name, 'without the sequence': data.leave_out},
            {'objects': data.objects.name, 'held out': 'one of five source images'},
        ]
    sources.append({'drives of the proving ground': data.drives})
    if data.photographs is not None:
        which = 'dhcn_indoor and coco_context, without their held-out parts'
        sources.append({'photographs of': which, 'licences': FREE if data.free else 'all'})
    return [*sources, {'score maps of': data.profile or 'nothing: spoilt truth only'}]


FREE = 'CC BY only'
"""Licences of the photographs where only free ones are taken."""

CARDS = {
    'detection_head': 'A head that puts boxes around unknown objects, from what the segmentor '
    'computes anyway (ood_perception.models.detection_head).',
    'light_prompts': 'A small detector that puts boxes around unknown objects in a picture and '
    'its calibrated score map (ood_perception.masks.score_detector).',
    'mask_head': 'A small network that outlines the object in a crop of picture and calibrated '
    'score map (ood_perception.masks.mask_head).',
}
"""Stem of the weights -> what they are."""


def _licence(sources: list[dict[str, Any]]) -> str:
    """Under which terms weights trained on `sources` come."""
    if any('camvid' in str(value) for source in sources for value in source.values()):
        return (
            'Trained on CamVid: non-commercial research use only. The objects are COCO cut-outs, '
            'each with its own Flickr licence.'
        )
    if any(source.get('licences') == FREE for source in sources):
        return (
            'Apache-2.0. The photographs are under CC BY 4.0 '
            '(github.com/buinghia3101/DHCN_dataset), CC BY 2.0, or have no known restrictions '
            '(COCO; compact_free.md lists them).'
        )
    return 'As the frames and objects allow.'


def card(
    weights: Path,
    numbers: dict[str, Any],
    sources: list[dict[str, Any]],
    record: dict[str, Any],
    command: str = '',
) -> None:
    """
    Write the model card of one of the masks stage's networks beside its weights.

    Args:
        weights: file whose stem is a key of `CARDS`.
        numbers: name -> value.
        sources: what it was trained on.
        record: everything that steered the run.
        command: the command line; '' = that of this process.

    """
    write_card(
        weights.with_suffix('.md'),
        {
            'name': weights.stem,
            'what': CARDS.get(weights.stem.removesuffix('_free'), 'A network of the masks stage.'),
            'command': command or shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
            'numbers': numbers,
            'data': sources,
            'licence': _licence(sources),
            'limits': [
                'validated on the sequence, objects and drives left out, where numbers say so; '
                'benchmarks/masks.py measures more, see docs/masks.md',
                'most objects are pasted or rendered; few of them stand on the road as real '
                'ones do',
            ],
            'record': record,
            'sha256': sha256_of(weights),
        },
    )
