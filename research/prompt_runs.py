# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Training of a prompt generator: the light one, or S2M's detector (`--preset s2m`)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from ood_training.checkpointing import TrainingError
from ood_training.data import Objects
from ood_training.presets import Stage, find_preset, override
from research.coco import open_objects
from research.commands import Out, Set, Weights, errors_in_one_line
from research.presets import PRESETS


def train_light(
    data: list[str], objects: Path, profile: str, output: Path, steps: int, scenes: int
) -> Path:
    """
    Train the light generator on frames with pasted objects.

    Args:
        data: frames, as `sources.open_frames` takes them.
        objects: folder of cut-outs with an INDEX.csv.
        profile: whose probability maps it learns from; '' = made from the truth, as spoiled as a
            real model's.
        output: file of the weights.
        steps: of training.
        scenes: that are made with a profile.

    Returns:
        `output`; a model card lies beside it.

    Raises:
        TrainingError: frames or objects that cannot be read, or no room to write to.

    """
    from research.masks import card
    from research.prompts import train_prompts
    from research.score_scenes import Scene, compose, load_objects, spoil

    things = load_objects(objects, held_out=False)
    frames = _frames(data)
    source: Any
    if profile:
        pipeline = _pipeline(profile)
        rng = np.random.default_rng(0)
        source = []
        for _ in range(scenes):
            image, labels = compose(frames[int(rng.integers(len(frames)))], things, rng)
            (result,) = pipeline(image, wants={'heatmap'})
            source.append(Scene(image, labels, result.heatmap.astype(np.float32) / 255))
    else:

        def source(rng: np.random.Generator) -> Scene:
            image, labels = compose(frames[int(rng.integers(len(frames)))], things, rng)
            return Scene(image, labels, spoil(labels, rng))

    train_prompts(source, output, steps)
    made = {'frames': data, 'objects': str(objects), 'profile': profile, 'steps': steps}
    sources = [{'frames': text} for text in data]
    sources += [{'objects': str(objects), 'score maps of': profile or 'nothing: spoilt truth'}]
    card(output, {'frames': len(frames), 'steps': steps}, sources, made)
    return output


def train_s2m(
    stage: Stage,
    folder: Path,
    scores: Path | None,
    data: list[str],
    objects: Objects | None,
    profile: str,
    count: int,
    weights: str,
) -> Path:
    """
    Train S2M's detector with the published schedule.

    Args:
        stage: of the preset.
        folder: of the run.
        scores: folder of score maps in S2M's layout; None makes them first.
        data: frames to paste into, where they are made.
        objects: what to paste.
        profile: whose score is taken.
        count: maps to make (2,858 in S2M).
        weights: to start from ('' = random; S2M starts from ImageNet).

    Returns:
        File of the weights.

    """
    import torch

    from ood_perception.checkpoints import load_checkpoint, resolve
    from ood_perception.models.faster_rcnn import PromptRCNN
    from ood_training.checkpointing import write_weights
    from ood_training.trainer import Trainer
    from research.prompt_rcnn import PromptTask, ScoreMaps, write_score_maps

    if scores is None:
        scores = folder / 'score_maps'
        if not (scores / 'ood.json').is_file():
            if not data or objects is None or not profile:
                raise TrainingError('give --scores, or --data, --objects and --profile')
            write_score_maps(scores, _mixed(stage, data, objects, profile, count))
    options = dict(stage.options)
    dataset = ScoreMaps(scores, int(options.get('size', 800)), stage.trainer.seed)
    torch.manual_seed(stage.trainer.seed)
    model = PromptRCNN()
    if weights:
        load_checkpoint(model, resolve(weights))
    task = PromptTask(model)
    record = {'stage': dataclasses.asdict(stage)}
    Trainer(task, dataset, stage.trainer, folder / 'prompts', record).fit()
    output = folder / 's2m_prompt_rcnn.safetensors'
    write_weights(output, model.state_dict())
    return output


def _mixed(
    stage: Stage, data: list[str], objects: Objects, profile: str, count: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    from research.published_exposure import rpl_mix

    frames, pipeline = _frames(data), _pipeline(profile)
    crop = int(stage.options.get('crop', 700))
    for i in range(count):
        rng = np.random.default_rng((stage.trainer.seed, i))
        image = frames[int(rng.integers(len(frames)))]
        label = np.zeros(image.shape[:2], np.uint8)
        image, label = rpl_mix(rng, image, label, objects, crop)
        (result,) = pipeline(np.ascontiguousarray(image), wants={'score'})
        yield result.score, label


def _frames(data: list[str]) -> Any:
    """Images of all sources, read when they are asked for."""
    from ood_training.sources import open_frames

    opened = [open_frames(text, 'train', 'normal' if ':' not in text else '') for text in data]
    paths = [path for frames in opened for path in frames.images]
    if not paths:
        raise TrainingError('no training frames: give --data')
    return _Lazy(paths)


class _Lazy:
    def __init__(self, paths: list[Path]) -> None:
        self.paths = paths

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        from ood_training.data import read_image

        return read_image(self.paths[index])


def _pipeline(profile: str) -> Any:
    import dataclasses

    from ood_perception.pipeline import Pipeline
    from ood_perception.profile import Profile, StageConfig

    bare = dataclasses.replace(
        Profile.load(profile), prompts=StageConfig(), mask_model=StageConfig()
    )
    return Pipeline.from_profile(bare)


def command(
    out: Out,
    data: Annotated[list[str], typer.Option(help='Frames to paste objects into.')] = [],  # noqa: B006
    objects: Annotated[str, typer.Option(help='To paste: rgba:folder or coco:folder.')] = '',
    profile: Annotated[
        str, typer.Option(help='Whose maps to learn from; none = likely maps made of the truth.')
    ] = '',
    preset: Annotated[
        str, typer.Option(help='light (minutes on a CPU), or s2m (the published detector).')
    ] = 'light',
    scores: Annotated[
        Path | None, typer.Option(help="s2m: folder of score maps in S2M's layout.")
    ] = None,
    steps: Annotated[int, typer.Option(help='light: steps of training.', min=1)] = 5000,
    count: Annotated[int, typer.Option(help='Score maps made where a profile is given.')] = 2858,
    weights: Weights = '',
    set_: Set = [],  # noqa: B006
) -> None:
    """Train the prompt generator: boxes from score maps."""
    with errors_in_one_line():
        if preset == 'light':
            file = out / 'light_prompts.safetensors'
            typer.echo(train_light(data, Path(objects), profile, file, steps, count))
            return
        stage = override(find_preset(preset, PRESETS).prompts, set_)
        things = open_objects(objects) if objects else None
        typer.echo(train_s2m(stage, out, scores, data, things, profile, count, weights))


if __name__ == '__main__':
    typer.run(command)
