# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Building the pipeline that the parameters describe, ready for the cameras' frames."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ood_perception.ros.fallback import Step
from ood_perception.ros.health import Reporter, describe
from ood_perception.ros.settings import Settings
from ood_perception.site_folder import accepted

if TYPE_CHECKING:
    from ood_perception.pipeline import Pipeline
    from ood_perception.scores.novelty import NoveltyScore

Size = tuple[int, int]

MARGIN = 0.03
"""Share of a picture's width around an accepted object that is accepted with it."""


def build(
    settings: Settings,
    step: Step,
    sizes: Collection[Size],
    batch: int,
    report: Reporter,
    memory: bytes = b'',
) -> Pipeline:
    """
    Build a pipeline, give it its memory of normal and warm it up.

    Args:
        sizes: (height, width) in pixels of the cameras' images, as far as they are known.
        batch: most frames that will come together.
        memory: what another pipeline of this profile had learnt, see :func:`learnt`; goes before
            the parameter memory_file.

    Returns:
        One for live use: a new image size, while running, keeps no frame waiting.

    Raises:
        ValueError, OSError, RuntimeError: what the pipeline or the memory file raises.
    """
    # Imported late: torch takes seconds, and a wrong parameter should fail before that.
    import torch

    from ood_perception.pipeline import Pipeline

    started = time.monotonic()
    report.check_installation(settings.profile)
    if settings.threads:
        torch.set_num_threads(settings.threads)
    report('info', f'loading profile {settings.profile!r} with {step}')
    pipeline = Pipeline.from_profile(
        settings.profile, step.device, step.engine, True, settings.frames_in_flight
    )
    try:
        score = memory_of(pipeline)
        if score is not None:
            _remember(score, settings.memory_file, memory)
        warm_up(pipeline, sizes, batch)
        if not memory:
            accept_all(pipeline, settings.site_folder)
    except BaseException:
        pipeline.close()
        raise
    seconds = time.monotonic() - started
    report('info', f'{settings.profile!r} is loaded: {_runs(pipeline)} ({seconds:.1f} s)')
    return pipeline


def warm_up(pipeline: Pipeline, sizes: Collection[Size], batch: int, wait: bool = True) -> None:
    """
    Run every size with every number of frames that may come together.

    With `wait` False a camera waits already: the simplest engine runs until another is chosen.
    """
    for size in sizes:
        for count in range(1, batch + 1):
            pipeline.warm_up([size], count, wait)


def _runs(pipeline: Pipeline) -> str:
    """Engine and device that run, and the licence of the weights, for the log."""
    text = f'engine {pipeline.engine.name or "not chosen before the first frame"}'
    text += f' on {pipeline.device}'
    licence = pipeline.profile.licence
    return f'{text}; weights: {licence or "no licence is named in the profile"}'


def leaves_processors(pipeline: Pipeline) -> bool:
    """Whether a processor has nothing to do while the pipeline computes."""
    import torch

    if pipeline.device.type != 'cpu':
        return True
    allowed = getattr(os, 'sched_getaffinity', None)  # Linux tells; elsewhere all are allowed
    return torch.get_num_threads() < (len(allowed(0)) if allowed else os.cpu_count() or 1)


def memory_of(pipeline: Pipeline) -> NoveltyScore | None:
    """Score that learns on site what is normal; None where the profile's score does not."""
    from ood_perception.scores import learns

    return pipeline.score if learns(pipeline.score) else None


def unlearnt(pipeline: Pipeline) -> str:
    """Why a memory of normal cannot judge, with the remedy; '' when it can or there is none."""
    memory = memory_of(pipeline)
    if memory is None or (memory.judges_untaught and not memory.size):
        return ''
    return memory.problem


def learnt(pipeline: Pipeline) -> bytes:
    """What a pipeline has learnt on site, for :func:`build`; empty where it has nothing."""
    memory = memory_of(pipeline)
    if memory is None or not memory.size:
        return b''
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'memory.safetensors'
        memory.save(str(path))
        return path.read_bytes()


def accept(pipeline: Pipeline, image: Any, mask: NDArray[np.bool_]) -> None:
    """Let the memory take an object as normal: uint8 (H, W, 3) RGB and bool (H, W)."""
    import torch

    score = memory_of(pipeline)
    assert score is not None
    side = 2 * round(MARGIN * mask.shape[1]) + 1
    wide = cv2.dilate(mask.astype(np.uint8), np.ones((side, side), np.uint8)) > 0
    score.accepting = torch.from_numpy(wide).to(pipeline.device)
    pipeline([image], streams=['site'], wants=('score',))
    pipeline.reset('site')


def accept_all(pipeline: Pipeline, folder: str) -> None:
    """Let a memory take what is kept in the site folder. Raises ValueError where it is damaged."""
    score = memory_of(pipeline)
    if folder and score is not None and score.size:
        for image, mask in accepted(Path(folder).expanduser()):
            accept(pipeline, image, mask)


def remember(score: NoveltyScore, memory: bytes) -> None:
    """Give a score what :func:`learnt` has kept. Raises ValueError where it does not fit."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'memory.safetensors'
        path.write_bytes(memory)
        score.load(str(path))


def _remember(score: NoveltyScore, file: str, memory: bytes) -> None:
    if memory:
        remember(score, memory)
    elif file and os.path.exists(os.path.expanduser(file)):
        try:
            score.load(os.path.expanduser(file))
        except (OSError, ValueError) as error:
            raise ValueError(f'memory_file: {error}; name another file or remove it') from error


class Learnt:
    """The memory of normal of a pipeline that was given back."""

    def __init__(self, report: Reporter) -> None:
        self.kept = b''  # what `learnt` returned last, empty for nothing
        self._report = report

    def of(self, pipeline: Pipeline | None) -> bytes:
        """What a pipeline has learnt, or, where it has nothing, what is kept."""
        try:
            return (pipeline is not None and learnt(pipeline)) or self.kept
        except Exception as error:  # a device that is lost takes it along
            self._lost(describe(error))
            return self.kept

    def keep(self, worker: Any) -> None:
        """Keep what the worker's pipeline has learnt, before it is given back."""
        if worker.pipeline is None or memory_of(worker.pipeline) is None:
            return
        try:
            self.kept = worker.call(lambda: self.of(worker.pipeline))
        except TimeoutError as error:
            self._lost(str(error))

    def _lost(self, reason: str) -> None:
        self._report('warn', f'the memory of normal is lost: {reason}')
