# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ood_perception import Pipeline, Profile
from ood_perception.assembly import first_of_largest
from ood_perception.frames.colour import RawFrame
from ood_perception.masks.boxes import Boxes
from ood_perception.models import create_model
from ood_perception.models.output import SegmentorOutput
from ood_perception.profile import MemoryConfig, ProfileError
from ood_perception.result import FramesFailed


@pytest.fixture(scope='module')
def profile(tmp_path_factory: pytest.TempPathFactory) -> Profile:
    """The compact profile with random heads: every stage is the real one."""
    torch.manual_seed(0)
    compact = Profile.load('compact')
    model = create_model('compact', **compact.segmentor.options)
    state = {k: v for k, v in model.state_dict().items() if k.startswith(('fpn.', 'uem.'))}
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    save_file(state, path)
    segmentor = dataclasses.replace(compact.segmentor, weights=str(path))
    image = dataclasses.replace(compact.image, short_side=96, max_long_side=160)
    return dataclasses.replace(compact, segmentor=segmentor, image=image)


@pytest.fixture(scope='module')
def pipeline(profile: Profile) -> Pipeline:
    return Pipeline.from_profile(profile, device='cpu', engine='eager')


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize('size', [(96, 128), (97, 131), (240, 320), (16, 16), (1, 1), (40, 400)])
def test_every_output_has_the_frame_s_size(pipeline: Pipeline, size: tuple[int, int]) -> None:
    (result,) = pipeline(picture(*size))
    assert result.score.shape == result.heatmap.shape == result.instances.shape == size
    assert result.semantic.shape == size
    assert result.score.dtype == np.float32
    assert result.heatmap.dtype == result.semantic.dtype == np.uint8
    assert result.instances.dtype == np.uint16
    count = len(result.ids)
    assert result.boxes.shape == (count, 4)
    for rows in (result.confidences, result.areas, result.mean_scores, result.surroundings):
        assert rows.shape == (count,)
    assert set(np.unique(result.instances)) - {0} <= set(result.ids.tolist())
    assert np.isfinite(result.score).all()
    assert result.timings['total'] > 0


def test_a_batch_equals_its_frames_alone(profile: Profile) -> None:
    frames = [picture(96, 128, 1), picture(240, 320, 2), picture(96, 128, 3)]
    together = Pipeline.from_profile(profile, 'cpu', 'eager')(frames)
    for i, frame in enumerate(frames):
        (alone,) = Pipeline.from_profile(profile, 'cpu', 'eager')(frame)
        np.testing.assert_allclose(together[i].score, alone.score, atol=2e-3)
        assert np.abs(together[i].heatmap.astype(int) - alone.heatmap).max() <= 1


def test_the_precision_of_a_gpu_changes_nothing_on_a_cpu(
    pipeline: Pipeline, profile: Profile
) -> None:
    other = dataclasses.replace(profile, precision='float32')
    assert profile.precision == 'float16'
    exact = Pipeline.from_profile(other, 'cpu', 'eager')
    assert exact.identity == pipeline.identity
    one, two = (p(picture(97, 131), wants={'score'})[0].score for p in (exact, pipeline))
    assert np.array_equal(one, two)


def test_only_what_is_wanted_is_computed(pipeline: Pipeline) -> None:
    (result,) = pipeline(picture(96, 128), wants={'heatmap'})
    assert result.heatmap is not None
    for name in ('score', 'instances', 'boxes', 'semantic'):
        assert getattr(result, name) is None
    assert 'masks' not in result.timings


def test_tensors_on_request(pipeline: Pipeline) -> None:
    (result,) = pipeline(torch.from_numpy(picture(96, 128)), as_tensors=True)
    assert isinstance(result.score, torch.Tensor)
    assert result.heatmap.dtype == torch.uint8


def test_raw_frames_are_converted(pipeline: Pipeline) -> None:
    rgb = picture(96, 128)
    bgr = RawFrame(np.ascontiguousarray(rgb[..., ::-1]).reshape(-1), 96, 128, 384, 'bgr8')
    (a,), (b,) = pipeline(rgb, wants={'score'}), pipeline(bgr, wants={'score'})
    np.testing.assert_allclose(a.score, b.score, atol=1e-5)


def test_heatmap_is_the_calibrated_score(pipeline: Pipeline) -> None:
    (result,) = pipeline(picture(96, 128))
    probability = pipeline.calibration(torch.from_numpy(result.score)).numpy()
    assert np.abs(result.heatmap - 255 * probability).max() <= 0.51


@pytest.mark.parametrize(
    ('frames', 'options', 'message'),
    [
        (np.zeros((4, 4), np.uint8), {}, r'expected uint8 \(H, W, 3\)'),
        (np.zeros((4, 4, 3), np.float32), {}, 'float32'),
        ([np.zeros((4, 4, 3), np.uint8)], {'streams': ['a', 'b']}, 'expected 1 names, got 2'),
        ([np.zeros((4, 4, 3), np.uint8)], {'stamps': [1, 2]}, 'expected 1 times, got 2'),
        ([np.zeros((4, 4, 3), np.uint8)], {'depths': []}, 'expected 1 images, got 0'),
        (
            [np.zeros((4, 4, 3), np.uint8)],
            {'depths': [np.zeros((4, 5), np.float32)]},
            r'float32 \(4, 4\) in metres, got float32 \(4, 5\)',
        ),
        (
            [np.zeros((4, 4, 3), np.uint8)],
            {'depths': [np.zeros((4, 4), np.uint16)]},
            r'float32 \(4, 4\) in metres, got uint16',
        ),
        ([np.zeros((4, 4, 3), np.uint8)], {'wants': {'masks'}}, r"got \['masks'\]"),
    ],
)
def test_bad_frames_are_refused(
    pipeline: Pipeline, frames: object, options: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        pipeline(frames, **options)


def test_no_frames_no_results(pipeline: Pipeline) -> None:
    assert pipeline([]) == []


def test_only_a_profile_with_a_memory_and_frames_with_stamps_have_a_past(profile: Profile) -> None:
    """The scene stands still, the score does not: noise that a memory halves."""
    assert profile.score.memory.seconds > 0
    alone = dataclasses.replace(profile.score, memory=MemoryConfig(0))
    kinds = {'memory': profile, 'none': dataclasses.replace(profile, score=alone)}
    smooth = cv2.GaussianBlur(picture(96, 128), (0, 0), 3)
    noise = np.random.default_rng(5).integers(0, 9, (6, 96, 128, 3), np.uint8)
    frames = [cv2.add(smooth, n) for n in noise]
    changes = {}
    for kind, chosen in kinds.items():
        for stamped in (True, False):
            pipeline = Pipeline.from_profile(chosen, 'cpu', 'eager')
            stamps = [[i * 40_000_000 + 1] if stamped else None for i in range(len(frames))]
            scores = [
                pipeline(frame, ['a'], wants={'score'}, stamps=stamp)[0].score
                for frame, stamp in zip(frames, stamps, strict=True)
            ]
            changes[kind, stamped] = np.abs(np.diff(scores[2:], axis=0)).mean()
            pipeline.reset('a')
            again = pipeline(frames[0], ['a'], wants={'score'}, stamps=[10**12])[0].score
            np.testing.assert_allclose(again, scores[0], atol=1e-4)
    alike = [changes[key] for key in (('none', True), ('none', False), ('memory', False))]
    assert max(alike) == pytest.approx(min(alike), rel=1e-3)
    assert changes['memory', True] < 0.6 * changes['none', True]


def test_reset_and_warm_up_leave_no_trace(profile: Profile) -> None:
    pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
    pipeline.warm_up([(96, 128)], batch=2)
    assert not pipeline._trackers
    pipeline(picture(96, 128), streams=['front'])
    assert list(pipeline._trackers) == ['front']
    pipeline.reset('front')
    assert len(pipeline._trackers['front']) == 0


@pytest.mark.parametrize(
    ('stage', 'change', 'message'),
    [
        ('segmentor', {'weights': '/nowhere.safetensors'}, r'segmentor.weights: .*nowhere'),
        ('segmentor', {'name': 'compct'}, r'segmentor \(compct\)'),
        ('segmentor', {'options': {'klasses': 3}}, r'segmentor \(compact\): .*klasses'),
        ('score', {'name': 'lrr'}, r"score \(lrr\): .*got 'lrr'"),
        ('prompts', {'name': 'boxes'}, r'prompts \(boxes\)'),
        ('mask_model', {'name': 'sem'}, r'mask_model \(sem\)'),
    ],
)
def test_a_wrong_stage_is_named(profile: Profile, stage: str, change: dict, message: str) -> None:
    wrong = dataclasses.replace(getattr(profile, stage), **change)
    with pytest.raises(ProfileError, match=message):
        Pipeline.from_profile(dataclasses.replace(profile, **{stage: wrong}), 'cpu', 'eager')


def test_wrong_device() -> None:
    from ood_perception.building import choose_device

    with pytest.raises(ValueError, match="got 'gpu0'"):
        choose_device('gpu0')
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match='sees no GPU'):
            choose_device('cuda')


class Limited:
    """The engine of a pipeline on a device that has room for two images."""

    channels_last = True

    def __init__(self, engine: Any) -> None:
        self.engine = engine
        self.batches: list[int] = []

    def __call__(self, images: torch.Tensor) -> SegmentorOutput:
        self.batches.append(len(images))
        if len(images) > 2:
            raise torch.OutOfMemoryError('simulated')
        return self.engine(images)


class Counted(torch.nn.Module):
    """A score that counts how often each stream was seen."""

    needs_features = learns = False

    def __init__(self, score: Any) -> None:
        super().__init__()
        self.score = score
        self.seen: Counter[str] = Counter()

    def forward(self, output: Any, size: Any, streams: list[str]) -> torch.Tensor:
        self.seen.update(streams)
        return self.score(output, size, streams)

    def reset(self, stream: str | None) -> None:
        self.score.reset(stream)


class Failing:
    """A mask model that fails as often as it is told when a marked frame is in its hands."""

    def __init__(self, model: Any, times: int) -> None:
        self.model = model
        self.times = times
        self.calls = 0

    def __call__(
        self, images: torch.Tensor, probability: torch.Tensor, boxes: torch.Tensor
    ) -> torch.Tensor:
        self.calls += 1
        if self.times > 0 and bool((images[:, :, 0, 0] == torch.tensor([1, 2, 3])).all(1).any()):
            self.times -= 1
            raise RuntimeError('masks broke')
        return self.model(images, probability, boxes)


@pytest.fixture
def watched(profile: Profile) -> Pipeline:
    """A pipeline that proposes a box in every frame, counts scores, and can be made to fail."""
    pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
    pipeline.score = Counted(pipeline.score)

    def one_box(images: torch.Tensor, *_: torch.Tensor | None) -> Boxes:
        count = len(images)
        box = torch.tensor([10.0, 10.0, 60.0, 60.0]).expand(count, 1, 4)
        return Boxes(box, torch.full((count, 1), 0.9), torch.ones(count, 1, dtype=torch.bool))

    pipeline.outliner.prompts = one_box
    return pipeline


def marked(seed: int) -> np.ndarray:
    image = picture(96, 128, seed)
    image[0, 0] = (1, 2, 3)
    return image


def test_out_of_memory_halves_the_batch(profile: Profile) -> None:
    pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
    pipeline.score = Counted(pipeline.score)
    limited = Limited(pipeline.engine)
    pipeline.engine = limited  # type: ignore[assignment]
    frames = [picture(96, 128, i) for i in range(5)]
    results = pipeline(frames)
    assert limited.batches == [5, 2, 3, 1, 2]
    assert set(pipeline.score.seen.values()) == {1}
    assert 'out of memory' in pipeline.notes[0]
    pipeline.reset()
    alone = [pipeline([frame], streams=[str(i)])[0] for i, frame in enumerate(frames)]
    for a, b in zip(results, alone, strict=True):
        np.testing.assert_allclose(a.score, b.score, atol=2e-3)


def test_a_mask_model_that_fails_once_is_asked_again(watched: Pipeline) -> None:
    watched.outliner.mask_model = Failing(watched.outliner.mask_model, times=1)
    results = watched([marked(0), picture(96, 128, 1)])
    assert all(r.instances is not None for r in results)
    assert watched.outliner.mask_model.calls == 2
    assert watched.score.seen == {'0': 1, '1': 1}
    assert 'masks broke' in watched.notes[-1]


def test_a_frame_that_fails_leaves_the_others_and_their_past_alone(watched: Pipeline) -> None:
    watched.outliner.mask_model = Failing(watched.outliner.mask_model, times=100)
    with pytest.raises(FramesFailed, match='1 of 3 frames failed: masks broke') as failure:
        watched([picture(96, 128, 1), marked(0), picture(240, 320, 2)], streams=['a', 'b', 'c'])
    first, second, third = failure.value.results
    assert first is not None
    assert second is None
    assert third is not None
    assert [e is None for e in failure.value.errors] == [True, False, True]
    assert third.instances.shape == (240, 320)
    assert watched.score.seen == {'a': 1, 'b': 1, 'c': 1}
    assert set(watched._trackers) <= {'a', 'c'}
    with pytest.raises(RuntimeError, match=r'^masks broke'):
        watched([marked(0)])


def test_warm_up_prepares_every_batch_and_the_mask_model(
    profile: Profile, monkeypatch: pytest.MonkeyPatch
) -> None:
    pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
    pipeline.outliner.mask_model = mask_model = Failing(pipeline.outliner.mask_model, times=0)
    prepared: list[tuple[int, ...]] = []
    prepare = pipeline.engine.prepare
    monkeypatch.setattr(
        pipeline.engine,
        'prepare',
        lambda shapes, wait: prepared.extend(shapes) or prepare(shapes, wait),
    )
    pipeline.warm_up([(96, 128), (240, 320)], batch=3)
    size = pipeline.network_size(96, 128)
    assert prepared[:3] == [(count, 3, *size) for count in (1, 2, 3)]
    assert len(prepared) == 6
    assert mask_model.calls >= 2
    assert not pipeline._trackers
    assert pipeline.engine.name == 'eager'


def test_import_needs_neither_ros_nor_segment_anything() -> None:
    code = (
        'import sys, ood_perception\n'
        'from ood_perception import Pipeline, Profile, Result\n'
        'assert "rclpy" not in sys.modules and "segment_anything" not in sys.modules\n'
        'import ood_evaluation, ood_perception.masks, ood_simulation\n'
        'assert "rclpy" not in sys.modules and "segment_anything" not in sys.modules\n'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_shipped_weights_find_a_strange_thing_on_a_road() -> None:
    """The default profile as a user gets it; every time photographs and a node show as much."""
    from ood_simulation import ProvingGround

    weights = Path(__file__).parents[1] / 'ood_perception/weights/compact.safetensors'
    assert weights.is_file()
    pipeline = Pipeline.from_profile('compact', 'cpu', 'eager')
    ground, scores, labels = ProvingGround(seed=1007), [], []
    for index in (60, 150, 240):
        frame = ground.frame(index)
        (result,) = pipeline(frame.image, wants={'score'})
        keep = frame.anomaly < 255
        scores.append(result.score[keep])
        labels.append(frame.anomaly[keep])
    from sklearn.metrics import roc_auc_score

    assert roc_auc_score(np.concatenate(labels), np.concatenate(scores)) >= 0.9


@pytest.mark.parametrize('levels', [2, 1000])
@pytest.mark.parametrize('size', [(13, 17), (39, 51), (40, 40), (5, 8)])
def test_classes_are_the_first_of_the_largest(levels: int, size: tuple[int, int]) -> None:
    logits = torch.randint(levels, (2, 11, 13, 17)).float()
    large = torch.nn.functional.interpolate(logits, size, mode='bilinear').double()
    found = first_of_largest(logits, size)
    assert found.dtype == torch.uint8
    assert found.shape == (2, *size)
    best = large.gather(1, found[:, None].long())[:, 0]
    # What is equal but for rounding may be either.
    torch.testing.assert_close(best, large.amax(1), rtol=1e-5, atol=1e-5)
    if size == (13, 17):
        assert torch.equal(found.long(), torch.from_numpy(logits.numpy().argmax(1)))
