# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""
Training of both small networks of the masks stage on the score maps of a profile.

Scenes are made once: held-in objects pasted on frames, and frames of the proving ground, each with
the score map that the profile's own model gives. The light prompts learn where objects are, the
mask head what they look like; both are written with their model cards.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ood_perception.training.cards import write_card
from ood_perception.training.mask_head import train_mask_head
from ood_perception.training.prompts import train_prompts
from ood_perception.training.score_scenes import Scene, compose, load_frames, load_objects, spoil

Progress = Callable[[str, float, float], None]
"""Called with what is being done, the share done 0..1 and the loss (0 while making scenes)."""


@dataclass(frozen=True)
class MaskData:
    """
    What the masks stage learns from.

    Attributes:
        profile: name or path of the profile whose score maps are learnt from; '' = spoilt truth
            only.
        frames: folder with an INDEX.csv (columns image, sequence) of frames without unknowns.
        objects: folder of RGBA cut-outs with an INDEX.csv.
        leave_out: sequence of the frames that is kept for validation.
        scenes: pasted scenes to make.
        drives: drives of the proving ground, one scene each.
        spoilt: share 0..1 of the pasted scenes whose score map is spoilt truth, so that other
            scores than the profile's are understood too.
        seed: of all chance.

    """

    profile: str = 'compact'
    frames: Path = Path('../shared/data/camvid_train')
    objects: Path = Path('../shared/data/outliers_train')
    leave_out: str = '0016E5'
    scenes: int = 400
    drives: int = 150
    spoilt: float = 0.25
    seed: int = 0


def make_scenes(data: MaskData, progress: Progress | None = None) -> list[Scene]:
    """
    Make the scenes of `data` with their score maps.

    Returns:
        Scenes of one size, that of the first frame.

    Raises:
        ValueError: no frames or objects, or a profile that cannot be built.

    """
    frames = load_frames(data.frames, without=data.leave_out)
    if not frames:
        raise ValueError(f'{data.frames}: no frames outside of the sequence {data.leave_out!r}')
    objects = load_objects(data.objects, held_out=False)
    rng = np.random.default_rng(data.seed)
    judge = _judge(data.profile) if data.profile else None
    height, width = frames[0].shape[:2]
    scenes = []
    for index in range(data.scenes + data.drives):
        if index < data.scenes:
            frame = frames[int(rng.integers(len(frames)))]
            image, labels = compose(frame, objects, rng)
        else:
            image, labels = proving_ground_scene(data.seed + index, width, height)
        plain = judge is None or (index < data.scenes and rng.random() < data.spoilt)
        probability = spoil(labels, rng) if judge is None or plain else judge(image)
        scenes.append(Scene(image, labels, probability.astype(np.float16)))
        if progress is not None:
            progress('scenes', (index + 1) / (data.scenes + data.drives), 0.0)
    return scenes


def proving_ground_scene(seed: int, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """Image uint8 (H, W, 3) and labels uint8 (H, W) of one frame of a drive, see `Scene`."""
    from ood_perception.simulation.proving_ground import ProvingGround

    frame = ProvingGround(seed, width, height).frame(int(seed * 7919 % 600))
    labels = np.zeros((height, width), np.uint8)
    for number, value in enumerate(np.unique(frame.instances[frame.instances > 0])[:254], 1):
        labels[frame.instances == value] = number
    return frame.image, labels


def _judge(profile: str) -> Callable[[np.ndarray], np.ndarray]:
    """Return a function from image to calibrated probability (H, W) under a profile."""
    from ood_perception.pipeline import Pipeline
    from ood_perception.profile import Profile, StageConfig

    bare = replace(Profile.load(profile), prompts=StageConfig(), segmenter=StageConfig())
    pipeline = Pipeline.from_profile(bare)

    def judge(image: np.ndarray) -> np.ndarray:
        (result,) = pipeline(image, wants=('score',))
        score = torch.from_numpy(result.score).to(pipeline.device)
        return pipeline.calibration(score).cpu().numpy()

    return judge


def train_masks(
    data: MaskData,
    output: Path,
    prompts_seconds: float = 240.0,
    head_seconds: float = 420.0,
    command: str = '',
    start: Path | None = None,
    scenes: Sequence[Scene] | None = None,
    progress: Progress | None = None,
) -> dict[str, Path]:
    """
    Train the light prompts and the mask head.

    Args:
        data: what to learn from.
        output: folder of light_prompts.safetensors, mask_head.safetensors and their cards.
        prompts_seconds: of wall time for the prompts, 0 = leave them out.
        head_seconds: of wall time for the mask head, 0 = leave it out.
        command: the command line, for the cards.
        start: folder with weights of both to start from, none = random.
        scenes: made before, none = make them.
        progress: see `Progress`.

    Returns:
        Paths of the weights by name.

    """
    if scenes is None:
        scenes = make_scenes(data, progress)
    written = {}
    jobs: tuple[tuple[str, Any, float], ...] = (
        ('light_prompts', train_prompts, prompts_seconds),
        ('mask_head', train_mask_head, head_seconds),
    )
    for name, train, seconds in jobs:
        if seconds <= 0:
            continue

        def told(done: float, loss: float, name: str = name) -> None:
            if progress is not None:
                progress(name, done, loss)

        path = output / f'{name}.safetensors'
        begin = start / path.name if start is not None else None
        train(scenes, path, seconds=seconds, seed=data.seed, start=begin, progress=told)
        _card(path, name, data, seconds, len(scenes), command)
        written[name] = path
    return written


def _card(
    path: Path, name: str, data: MaskData, seconds: float, scenes: int, command: str
) -> None:
    what = {
        'light_prompts': 'A small detector that puts boxes around unknown objects in a '
        'calibrated score map (ood_perception.masks.light_prompts).',
        'mask_head': 'A small network that outlines the object in a crop of picture and '
        'calibrated score map (ood_perception.masks.mask_head).',
    }[name]
    write_card(
        path.with_suffix('.md'),
        {
            'name': name,
            'what': what,
            'command': command or 'ood_perception.training.masks.train_masks(...)',
            'numbers': {'scenes': scenes, 'seconds of training': seconds},
            'data': [
                {'frames': data.frames.name, 'without the sequence': data.leave_out},
                {'objects': data.objects.name, 'held out': 'one of five source images'},
                {'score maps of': data.profile or 'nothing: spoilt truth only'},
            ],
            'licence': 'Trained on CamVid: non-commercial research use only. The objects are '
            'COCO cut-outs, each with its own Flickr licence.',
            'limits': [
                'measured by benchmarks/masks.py; see docs/masks.md for the numbers',
                'objects are pasted or rendered; few of them stand on the road as real ones do',
            ],
            'record': {**asdict(data), 'seconds': seconds},
            'sha256': hashlib.sha256(path.read_bytes()).hexdigest(),
        },
    )
