# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Pipeline: frames -> results. The one place where the stages meet.

upload -> segmentor -> score -> calibration -> prompts -> masks -> download, all on the device.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import Future
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.assembly import Maps, finish, semantic_map
from ood_perception.building import (
    choose_device,
    compile_parts,
    create_stage,
    detecting,
    load_segmentor,
    model_identity,
    profile_identity,
)
from ood_perception.engines import create_engine
from ood_perception.engines.base import EngineEvent, Shape, is_out_of_memory, release_memory
from ood_perception.engines.crowding import TorchThreads
from ood_perception.engines.measure import probe_frame
from ood_perception.frames import transfer
from ood_perception.frames.colour import RawFrame
from ood_perception.frames.timing import StageTimer
from ood_perception.host_memory import return_freed_memory
from ood_perception.in_flight import Row, Turn
from ood_perception.masks import create_mask_model, create_prompts
from ood_perception.masks.box_memory import BoxMemory
from ood_perception.masks.fusion import Instances
from ood_perception.masks.tracking import Trackers
from ood_perception.models.output import InputSpec, SegmentorOutput, concatenate
from ood_perception.outlining import Outliner
from ood_perception.profile import Profile, ProfileError
from ood_perception.result import FramesFailed, Result
from ood_perception.scores import DARK, ScoreModule, create_score, paused
from ood_perception.scores.calibration import Calibration
from ood_perception.scores.memory import ScoreMemory

WANTS = frozenset({'score', 'heatmap', 'instances', 'semantic'})
"""What a caller can ask of a frame; 'instances' brings boxes and everything with one row a box."""

UNLIKELY = 0.1
"""What an object's confidence may lack of the tracker's `start` for its outline to be made."""

log = logging.getLogger(__name__)


class Pipeline:
    """
    Find, score and outline unknown objects in frames of one or many cameras.

    >>> pipeline = Pipeline.from_profile('compact')  # doctest: +SKIP
    >>> result, = pipeline(image)                    # doctest: +SKIP

    Attributes:
        profile: what the pipeline was built from.
        device: where it runs.
        engine: runs the segmentor; its `name`, `why` and `events` say how.
        notes: what went wrong and what was done about it, newest last, at most 32 lines.

    """

    def __init__(
        self,
        profile: Profile,
        segmentor: nn.Module,
        device: torch.device,
        engine: str = 'auto',
        live: bool = False,
        in_flight: int = 1,
    ) -> None:
        self.profile, self.device = profile, device
        self.in_flight = in_flight if device.type == 'cpu' else 1
        self._row, self._threads = Row(self.in_flight), TorchThreads(device, self.in_flight)
        self.notes: list[str] = []
        self.spec: InputSpec = segmentor.spec  # type: ignore[assignment]
        self.score: ScoreModule = create_stage('score', create_score, profile.score).to(device)
        try:
            self.score.identify(model_identity(profile))
        except ValueError as error:
            raise ProfileError(f'score.weights: {error}') from error
        prompts: Any = None
        if profile.prompts.name:
            prompts = create_stage('prompts', create_prompts, profile.prompts).to(device)
            segmentor = detecting(segmentor, prompts, profile)
        self.engine = create_engine(
            engine,
            segmentor,
            device,
            getattr(torch, profile.precision),
            features=self.score.needs_features,
            note=self._note,
            live=live,
            lanes=self.in_flight,
        )
        seconds = profile.score.memory.seconds
        self._memory = ScoreMemory(seconds) if seconds else None
        lasting = profile.tracking.options if profile.tracking.enabled else None
        self._trackers = Trackers(lasting)
        self._boxes = BoxMemory((lasting or {}).get('start', 0.0) - UNLIKELY)
        self.calibration = Calibration.from_config(profile.calibration).to(device)
        self.outliner: Outliner | None = None
        if prompts is not None:
            mask_model = create_stage('mask_model', create_mask_model, profile.mask_model)
            stages = prompts, mask_model.to(device)
            if device.type == 'cpu' and (engine == 'auto' or engine.startswith('openvino')):
                with self._threads:
                    for stage in stages:
                        compile_parts(stage, live, engine in ('auto', 'openvino_int8'))
            ground = tuple(profile.classes.index(name) for name in profile.ground_classes)
            self.outliner = Outliner(*stages, ground, self._note)
        if profile.classes and not profile.ground_classes:
            log.info('ground_classes of the profile are not named: no surroundings of objects')
        self._upload = transfer.Uploader(device)

    @classmethod
    def from_profile(
        cls,
        name_or_path: str | Path | Profile,
        device: str = 'auto',
        engine: str = 'auto',
        live: bool = False,
        in_flight: int = 1,
    ) -> Pipeline:
        """
        Build the pipeline that a profile describes, with its weights.

        Args:
            name_or_path: name of a profile, path of a YAML file, or a Profile.
            device: 'auto' (a GPU where there is one), 'cpu', 'cuda' or 'cuda:N'.
            engine: entry of `engines.ENGINES` or 'auto'.
            live: no frame waits until its size is prepared, eager computes it. False for files.
            in_flight: submissions that a CPU works on at once, each on its share of the cores.

        Raises:
            ProfileError: the profile is wrong or a weight file is missing; the message starts with
                the key's path and says what to do.

        """
        profile = name_or_path if isinstance(name_or_path, Profile) else Profile.load(name_or_path)
        return cls(
            profile, load_segmentor(profile), choose_device(device), engine, live, in_flight
        )

    def __call__(
        self,
        frames: Any,
        streams: Sequence[str] | None = None,
        as_tensors: bool = False,
        wants: Collection[str] = WANTS,
        stamps: Sequence[int | None] | None = None,
        depths: Sequence[Any] | None = None,
    ) -> list[Result]:
        """
        Process frames that arrived together, as one batch for each processing size.

        Args:
            frames: one uint8 (H, W, 3) RGB array or tensor, or RawFrame, or a list of them; sizes
                may differ.
            streams: name of the camera of each frame, for what lives through time (tracks,
                streaming clusters); default '0', '1', ... by position.
            as_tensors: leave the results on the device as tensors.
            wants: what to compute, out of 'score', 'heatmap', 'instances', 'semantic'.
            stamps: time of each frame in ns, for the memory of a profile that has one; None where
                frames have nothing to do with each other.
            depths: float32 (H, W) metres or None of each frame, for a score with option `depth`.

        Returns:
            One Result a frame, in order.

        Raises:
            ValueError: a frame that is not uint8 (H, W, 3), depth of another size, or an unknown
                name in `wants`; no frame was processed.
            FramesFailed: some of several frames could not be processed; it holds the results of
                the others. They are not to be tried again: tracks and clusters had them already.
            Exception: the only frame could not be processed.

        """
        with self._row.draw() as turn:
            return self._process(turn, frames, streams, as_tensors, wants, stamps, depths)

    def submit(self, *args: Any, **options: Any) -> Future[list[Result]]:
        """
        Begin to process frames; arguments, results and errors are those of a call.

        Of `in_flight` submissions the networks run side by side, the rest in order. With 1 all is
        done when this returns.
        """
        return self._row.submit(lambda turn: self._process(turn, *args, **options))

    @torch.inference_mode()
    def _process(
        self,
        turn: Turn,
        frames: Any,
        streams: Sequence[str] | None = None,
        as_tensors: bool = False,
        wants: Collection[str] = WANTS,
        stamps: Sequence[int | None] | None = None,
        depths: Sequence[Any] | None = None,
    ) -> list[Result]:
        if not isinstance(frames, (list, tuple)):
            frames = [frames]
        tensors = [transfer.as_frame(frame) for frame in frames]
        names = list(streams) if streams is not None else [str(i) for i in range(len(tensors))]
        if len(names) != len(tensors):
            raise ValueError(f'streams: expected {len(tensors)} names, got {len(names)}')
        times = list(stamps) if stamps is not None else [None] * len(tensors)
        if len(times) != len(tensors):
            raise ValueError(f'stamps: expected {len(tensors)} times, got {len(times)}')
        metres = transfer.as_depths(depths, tensors) if depths is not None else []
        if unknown := set(wants) - WANTS:
            raise ValueError(f'wants: expected some of {sorted(WANTS)}, got {sorted(unknown)}')
        groups: dict[tuple[int, int], list[int]] = {}
        for index, frame in enumerate(tensors):
            groups.setdefault(self.network_size(*frame.shape[:2]), []).append(index)
        outcomes: list[Result | Exception] = [Result()] * len(tensors)
        for size, indices in groups.items():
            batch = [tensors[i] for i in indices]
            seen = [names[i] for i in indices], [times[i] for i in indices]
            far = [metres[i] for i in indices] if metres else []
            done: Sequence[Result | Exception]
            try:
                with self._on_device(), self._threads:
                    done = self._run(turn, batch, *seen, far, size, as_tensors, frozenset(wants))
            except Exception as error:
                done = [error] * len(batch)
            for index, outcome in zip(indices, done, strict=True):
                outcomes[index] = outcome
        failed = [outcome for outcome in outcomes if isinstance(outcome, Exception)]
        if failed:
            raise failed[0] if len(tensors) == 1 else FramesFailed(outcomes) from failed[0]
        return [outcome for outcome in outcomes if isinstance(outcome, Result)]

    @property
    def identity(self) -> str:
        """Name what decides which objects are found: profile, weights, what was learnt on site."""
        return profile_identity(self.profile, self.score)

    def network_size(self, height: int, width: int) -> tuple[int, int]:
        """Size (h, w) in pixels at which a frame of (height, width) pixels is processed."""
        of, multiple = self.profile.image, self.spec.multiple_of
        return transfer.network_size(height, width, of.short_side, of.max_long_side, multiple)

    def warm_up(self, sizes: Iterable[tuple[int, int]], batch: int = 1, wait: bool = True) -> None:
        """
        Do now what the first frames would have to wait for, up to the outlines of objects.

        Args:
            sizes: (height, width) of the frames that will come.
            batch: frames that may come together; all smaller batches are prepared, too.
            wait: False begins with the simplest engine, if the others have to be measured first.

        """
        sizes = list(sizes)
        shapes: list[Shape] = [
            (count, 3, *self.network_size(*size))
            for size in sizes
            for count in range(1, batch + 1)
        ]
        with self._on_device(), self._threads:
            self.engine.prepare(shapes, wait)
        names = [f'warm-up {i}' for i in range(batch)]
        for height, width in sizes:
            results = self([probe_frame(height, width)] * batch, streams=names)
            if self.outliner is not None and not len(results[0].ids):
                with torch.inference_mode(), self._on_device():
                    self.outliner.warm_up(*self.network_size(height, width), self.device)
        with self._row.draw() as turn:
            turn.wait()
            for name in names:
                self.score.reset(name)
                self._boxes.reset(name)
                self._trackers.pop(name, None)
        return_freed_memory()

    def reset(self, stream: str | None = None) -> None:
        """Forget the past of one camera (None: of all): scores, clusters, tracks. Ids go on."""
        with self._row.draw() as turn:
            turn.wait()
            self.score.reset(stream)
            self._boxes.reset(stream)
            if self._memory is not None:
                self._memory.reset(stream)
            self._trackers.reset(stream)

    def faults(self) -> list[EngineEvent]:
        """What keeps networks from the engine that they should run in, at the moment."""
        return self.engine.faults() + (self.outliner.faults() if self.outliner else [])

    def close(self) -> None:
        """Release the device memory. The pipeline cannot be used afterwards."""
        self._row.close()
        if 'engine' in self.__dict__:
            self.engine.close()
        for name in ('engine', 'score', 'calibration', 'outliner'):
            self.__dict__.pop(name, None)
        self._trackers.clear()
        if self.device.type == 'cuda':
            torch.cuda.empty_cache()

    def _note(self, line: str) -> None:
        self.notes = [*self.notes[-31:], line]

    def _on_device(self) -> AbstractContextManager[Any]:
        return torch.cuda.device(self.device) if self.device.type == 'cuda' else nullcontext()

    def _run(
        self,
        turn: Turn,
        frames: list[Tensor | RawFrame],
        streams: list[str],
        stamps: list[int | None],
        depths: list[Any],
        size: tuple[int, int],
        as_tensors: bool,
        wants: frozenset[str],
    ) -> list[Result | Exception]:
        """
        Process a batch; the exception in place of a frame's result, where there is one.

        The score learns from a frame and the tracker moves on with it, so each sees it once. What
        comes before them raises for all frames; what is between and after them is tried again by
        itself, since memory may come back, and fails for its frame only.
        """
        timer = StageTimer(self.device)
        with timer.stage('upload'):
            images = self._upload(frames, size)
            inputs = transfer.normalise(images, self.spec, self.engine.channels_last)
            metres = transfer.upload_depths(depths, size, self.device) if depths else None
        with timer.stage('segmentor'):
            output = self._segment(inputs)
            output.depth = metres
        turn.wait()
        started = time.perf_counter()
        with timer.stage('score'):
            # a covered lens is nothing to learn from
            with paused(self.score, lambda: float(images.float().std()) <= DARK):
                score = self.score(output, size, streams)
            score = torch.nan_to_num(score.float(), nan=0.0, posinf=1e4, neginf=-1e4)
            if self._memory is not None:
                score = self._memory(score, images, streams, stamps)
            probability = self.calibration(score)
            semantic = None
            if wants & {'semantic', 'instances'}:
                semantic = semantic_map(output, size, exact='semantic' in wants)
        self._threads.took(time.perf_counter() - started)
        found: Sequence[Instances | Exception | None] = [None] * len(frames)
        ways = [None] * len(frames) if self._memory is None else self._memory.ways
        if self.outliner is not None and 'instances' in wants:
            maps = score, probability, semantic, output.detections
            found = self.outliner(
                images, *maps, timer, lambda boxes: self._boxes(boxes, size, ways, streams)
            )
        with timer.stage('download'):
            outcomes = finish(
                Maps(images, score, probability, semantic),
                found,
                [(int(frame.shape[0]), int(frame.shape[1])) for frame in frames],
                wants,
                as_tensors,
                self._note,
                lambda i, own, seen: self._trackers.settle(own, seen, streams[i], stamps[i]),
                cuts=self.profile.tracking.enabled,
            )
        timings = timer.read() if not as_tensors or self.device.type != 'cuda' else {}
        for outcome in outcomes:
            if isinstance(outcome, Result):
                outcome.timings = timings
        return outcomes

    def _segment(self, images: Tensor) -> SegmentorOutput:
        """Run the segmentor on a batch; where the device has no room for it, on its halves."""
        try:
            return self.engine(images)
        except Exception as error:
            if len(images) == 1 or not is_out_of_memory(error):
                raise
            release_memory()
        line = f'device out of memory at a batch of {len(images)}; running halves'
        log.warning(line)
        self._note(line)
        half = len(images) // 2
        first = concatenate([self._segment(images[:half])])  # the next call may overwrite it
        return concatenate([first, self._segment(images[half:])])
