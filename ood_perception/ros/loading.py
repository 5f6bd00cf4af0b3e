# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Building the pipeline that the parameters describe, ready for the cameras' frames."""

from __future__ import annotations

import inspect
import os
import tempfile
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any

from ood_perception.ros.fallback import Step
from ood_perception.ros.reporting import Reporter
from ood_perception.ros.settings import Settings

Size = tuple[int, int]


def build(
    settings: Settings,
    step: Step,
    sizes: Collection[Size],
    batch: int,
    report: Reporter,
    memory: bytes = b'',
) -> Any:
    """
    Build a pipeline, give it its memory of normal and warm it up.

    Args:
        settings: the node's parameters.
        step: engine and device to run on.
        sizes: (height, width) in pixels of the cameras' images, as far as they are known.
        batch: most frames that will come together.
        report: tells what is done.
        memory: what another pipeline of this profile had learnt, see :func:`learnt`; goes before
            the parameter memory_file.

    Returns:
        The ood_perception.pipeline.Pipeline.

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
    # live: a new image size while running never keeps a frame waiting
    live = {'live': True} if 'live' in inspect.signature(Pipeline.from_profile).parameters else {}
    pipeline = Pipeline.from_profile(settings.profile, step.device, step.engine, **live)
    try:
        if learns(pipeline):
            _remember(pipeline.score, settings.memory_file, memory)
        warm_up(pipeline, sizes, batch)
    except BaseException:
        pipeline.close()
        raise
    seconds = time.monotonic() - started
    report('info', f'{settings.profile!r} is loaded: {describe(pipeline)} ({seconds:.1f} s)')
    return pipeline


def warm_up(pipeline: Any, sizes: Collection[Size], batch: int) -> None:
    """Run every size with every number of frames that may come together."""
    for size in sizes:
        for count in range(1, batch + 1):
            pipeline.warm_up([size], count)


def describe(pipeline: Any) -> str:
    """Engine and device that run, and the licence of the weights, for the log."""
    text = f'engine {engine_of(pipeline) or "not chosen before the first frame"}'
    text += f' on {pipeline.device}'
    licence = pipeline.profile.licence
    return f'{text}; weights: {licence or "no licence is named in the profile"}'


def engine_of(pipeline: Any) -> str:
    """Name of the engine that runs, '' before it was chosen."""
    return str(getattr(getattr(pipeline, 'engine', None), 'name', ''))


def classes(pipeline: Any) -> list[str]:
    """Names of the profile's known classes, by their id; empty where it has none."""
    return list(getattr(getattr(pipeline, 'profile', None), 'classes', ()))


def learns(pipeline: Any) -> bool:
    """Whether the score itself learns on site what is normal."""
    score = getattr(pipeline, 'score', None)
    return bool(getattr(score, 'learns', hasattr(score, 'start')))


def unlearnt(pipeline: Any) -> str:
    """Why a memory of normal cannot judge: nothing learnt, or other features; '' when it can."""
    if not learns(pipeline):
        return ''
    score = pipeline.score
    if not score.size:
        return 'nothing was learnt yet'
    problem = getattr(score, 'problem', None)
    if problem is not None:
        return str(problem)
    width = getattr(score, '_width', 0)
    if width and score.bank.shape[1] != width:
        return (
            f'it holds {score.bank.shape[1]} features, the network gives {width}: '
            'it was learnt with another network'
        )
    return ''


def engine_faults(pipeline: Any) -> list[str]:
    """What is wrong with the engine at the moment: it fell back to a simpler one."""
    faults = getattr(getattr(pipeline, 'engine', None), 'faults', None)
    return [str(event) for event in faults()] if faults is not None else []


def learnt(pipeline: Any) -> bytes:
    """What a pipeline has learnt on site, for :func:`build`; empty where it has nothing."""
    if not learns(pipeline) or not pipeline.score.size:
        return b''
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / 'memory.safetensors'
        pipeline.score.save(str(path))
        return path.read_bytes()


def _remember(score: Any, file: str, memory: bytes) -> None:
    if memory:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / 'memory.safetensors'
            path.write_bytes(memory)
            score.load(str(path))
    elif file and os.path.exists(os.path.expanduser(file)):
        try:
            score.load(os.path.expanduser(file))
        except (OSError, ValueError) as error:
            raise ValueError(f'memory_file: {error}; name another file or remove it') from error
