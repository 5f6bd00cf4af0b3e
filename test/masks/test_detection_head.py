# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The detection head: inside the segmentor, behind its engines, and as prompts."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from ood_perception import Pipeline, Profile
from ood_perception.building import TRAINED_ON, LogOdds, create_stage, detecting, load_segmentor
from ood_perception.engines.export import TupleOutput
from ood_perception.engines.measure import largest_difference, probe_frames
from ood_perception.masks import create_prompts
from ood_perception.models import create_model
from ood_perception.models.detection_head import DetectingSegmentor, DetectionHead
from ood_perception.models.int8 import Int8Conv
from ood_perception.models.output import SegmentorOutput, concatenate
from ood_perception.models.unet import UNetwork
from ood_perception.profile import ProfileError, StageConfig
from ood_perception.result import Result
from ood_perception.scores import create_score
from ood_perception.scores.calibration import Calibration

torch.set_num_threads(1)


def output_of(places: dict[tuple[int, int], tuple[float, ...]], size=(12, 16)) -> torch.Tensor:
    """Output (1, 5, h, w): a logit of -9 but where `places` says: row, column -> its five."""
    out = torch.full((1, 5, *size), 1.0)
    out[:, 0] = -9.0
    for (row, column), values in places.items():
        out[0, :, row, column] = torch.tensor(values)
    return out


def boxes_of(output: torch.Tensor, probability: torch.Tensor, **options):
    prompts = create_prompts('detection_head', weights='', **options)
    images = torch.zeros(len(probability), 3, *probability.shape[1:], dtype=torch.uint8)
    return prompts(images, probability, probability, output)


def test_boxes_are_read_off_the_detections() -> None:
    output = output_of({(3, 4): (2.0, 5, 6, 7, 8), (8, 10): (0.0, 4, 4, 4, 4)})
    probability = torch.zeros(1, 48, 64)
    probability[0, 14, 18] = 0.9  # centre of place (3, 4), in the first box alone
    found = boxes_of(output, probability, threshold=0.45)
    assert found.valid[0].tolist() == [True, True] + [False] * 14
    assert found.boxes[0, 0].tolist() == [18 - 5, 14 - 6, 18 + 7, 14 + 8]
    assert found.boxes[0, 1].tolist() == [38, 30, 46, 38]
    strong = torch.sigmoid(torch.tensor(2.0))
    assert found.confidences[0, 0] == pytest.approx(float(1 - (1 - strong) * 0.1))
    assert found.confidences[0, 1] == pytest.approx(0.5)
    assert int(boxes_of(output, probability, threshold=0.6).valid.sum()) == 1


@pytest.mark.parametrize('peak', [0.0, 0.29, float('nan')])
def test_a_frame_below_the_seed_has_none(peak: float) -> None:
    output = output_of({(3, 4): (9.0, 5, 6, 7, 8)})
    found = boxes_of(output, torch.full((1, 48, 64), peak), seed=0.3)
    assert not found.valid.any()
    assert not found.boxes.any()


def test_detections_that_are_no_numbers_give_no_box() -> None:
    for bad in (float('nan'), float('inf')):
        output = output_of({(3, 4): (9.0, bad, 6, 7, 8)})
        assert not boxes_of(output, torch.full((1, 48, 64), 0.5)).valid[0, 0]


def test_prompts_without_detections_say_so() -> None:
    with pytest.raises(ValueError, match='no detection head'):
        boxes_of(None, torch.ones(1, 48, 64))  # type: ignore[arg-type]


def test_maps_beside_are_added_on_the_way_down() -> None:
    torch.manual_seed(0)
    net = UNetwork(nn.Conv2d(1, 4, 1), (4, 6, 8)).eval()
    x = torch.randn(2, 1, 16, 24)
    zeros = [torch.zeros(2, 4, 16, 24), torch.zeros(2, 6, 8, 12), torch.zeros(2, 8, 4, 6)]
    assert torch.equal(net.maps(x, zeros), net.maps(x))
    beside = [torch.randn_like(z) for z in zeros]
    first = net.stem(x) + beside[0]
    second = net.down[0](first) + beside[1]
    third = net.down[1](second) + beside[2]
    top = net.up[2](net.lateral[2](third))
    for level, coarse in ((second, 1), (first, 0)):
        up = nn.functional.interpolate(top, level.shape[2:], mode='nearest')
        top = net.up[coarse](net.lateral[coarse](level) + up)
    torch.testing.assert_close(net.maps(x, beside), top)


@pytest.mark.parametrize('size', [(64, 96), (72, 104), (40, 56)])
def test_the_head_answers_for_every_place_of_four_pixels(size: tuple[int, int]) -> None:
    segmentor = create_model('compact', pretrained=False).eval()
    whole = DetectingSegmentor(segmentor, DetectionHead(), LogOdds(0.7, -1.5)).eval()
    with torch.inference_mode():
        found = whole(torch.randn(2, 3, *size))
        plain = segmentor(torch.randn(1, 3, *size))
    assert found.detections.shape == (2, 5, size[0] // 4, size[1] // 4)
    assert (found.detections[:, 1:] > 0).all()
    assert plain.detections is None


def test_the_head_sees_what_the_calibrated_score_says() -> None:
    """At the UEM's size the log-odds are those of the profile's own probability."""
    torch.manual_seed(0)
    output = SegmentorOutput(logits=torch.randn(2, 7, 16, 24), ood=torch.randn(2, 2, 16, 24))
    score = create_score('llr', exact=False)(output, (16, 24))
    probability = Calibration('platt', 0.5, -1.0)(score)
    odds = LogOdds(0.5, -1.0)(output)
    torch.testing.assert_close(odds[:, 0], torch.logit(probability) / 4, atol=1e-4, rtol=1e-4)
    far = SegmentorOutput(logits=output.logits, ood=output.ood * 100)
    assert LogOdds(0.5, -1.0)(far).abs().max() == 2


def test_only_the_segmentor_that_the_head_was_made_for_takes_it() -> None:
    prompts, profile = create_prompts('detection_head', weights=''), Profile.load('compact')
    other = nn.Identity()
    with pytest.raises(ProfileError, match=r'prompts.name: .*take score_detector'):
        detecting(other, prompts, profile)
    assert detecting(other, create_prompts('components'), profile) is other


def test_a_quantile_calibration_leaves_the_head_what_it_learnt_from() -> None:
    profile = Profile.load('compact')
    quantile = dataclasses.replace(
        profile.calibration, kind='quantile', knots=[0.0, 1.0], values=[0.0, 1.0]
    )
    segmentor = create_model('compact', pretrained=False)
    prompts = create_prompts('detection_head', weights='')
    whole = detecting(segmentor, prompts, dataclasses.replace(profile, calibration=quantile))
    assert float(whole.odds.slope) == pytest.approx(TRAINED_ON.slope)
    # the shipped head belongs to the shipped profile
    assert profile.calibration.slope == TRAINED_ON.slope
    assert profile.calibration.offset == TRAINED_ON.offset


def test_detections_pass_through_tuples_and_joined_batches() -> None:
    segmentor = create_model('compact', pretrained=False).eval()
    whole = DetectingSegmentor(segmentor, DetectionHead(), LogOdds(0.7, -1.5)).eval()
    images = torch.randn(2, 3, 64, 96)
    with torch.inference_mode():
        wanted = whole(images)
        flat = TupleOutput(whole, features=False)
        got = flat.restore(flat(images))
        parts = concatenate([whole(images[:1]), whole(images[1:])])
        without = flat.restore(TupleOutput(whole, features=False)(images)[:3])
    assert torch.equal(got.detections, wanted.detections)
    assert torch.equal(without.ood, wanted.ood)
    torch.testing.assert_close(parts.detections, wanted.detections, atol=1e-4, rtol=1e-4)
    other = dataclasses.replace(wanted, detections=wanted.detections + 1)
    assert largest_difference(other, wanted) > 0
    assert largest_difference(dataclasses.replace(wanted, detections=None), wanted) == float('inf')


@pytest.mark.parametrize('profile_name', ['compact', 'compact_free'])
def test_the_int8_form_keeps_the_answer_of_a_shipped_head(profile_name: str) -> None:
    profile = Profile.load(profile_name)
    prompts = create_stage('prompts', create_prompts, profile.prompts)
    whole = detecting(load_segmentor(profile), prompts, profile)
    images = torch.from_numpy(probe_frames()[0]).permute(2, 0, 1)[None].float()
    images = (images - 127) / 128
    with torch.inference_mode():
        rounded = whole.int8(images)
        layers = {n: m for n, m in rounded.detection.named_modules() if isinstance(m, Int8Conv)}
        convolutions = {n for n, m in whole.detection.named_modules() if isinstance(m, nn.Conv2d)}
        assert set(layers) == convolutions - {'head'}
        found, wanted = rounded(images), whole(images)
    gap = (found.detections - wanted.detections).square().mean().sqrt()
    assert float(gap / wanted.detections.std()) < 0.2


def test_a_head_that_nobody_measured_stays_in_float32() -> None:
    prompts = create_prompts('detection_head', weights='')
    profile = Profile.load('compact')
    whole = detecting(load_segmentor(profile), prompts, profile)
    assert whole.int8(torch.zeros(1, 3, 64, 96)).detection is whole.detection


@pytest.fixture(scope='module')
def eager() -> Pipeline:
    return Pipeline.from_profile('compact', 'cpu', 'eager')


@pytest.fixture(scope='module')
def reference(eager: Pipeline) -> Result:
    (result,) = eager(probe_frames()[0])
    return result


@pytest.mark.parametrize('engine', ['eager', 'openvino', 'openvino_int8'])
def test_an_object_is_found_behind_every_engine(
    engine: str, eager: Pipeline, reference: Result
) -> None:
    if engine == 'eager':
        pipeline = eager
    else:
        pytest.importorskip('openvino', reason='needs openvino')
        pipeline = Pipeline.from_profile('compact', 'cpu', engine)
    frames = [probe_frames()[0], probe_frames()[0]]
    together = pipeline(frames)
    (alone,) = pipeline(frames[0])
    assert len(alone.boxes) >= 1  # the probe frame shows unknown objects
    for result in together:
        torch.testing.assert_close(
            torch.from_numpy(result.boxes), torch.from_numpy(alone.boxes), atol=1.5, rtol=0
        )
    best = int(reference.confidences.argmax())
    mine = alone.instances[reference.instances == reference.ids[best]]
    assert (mine > 0).mean() > 0.7


def test_a_score_detector_may_take_its_place() -> None:
    profile = dataclasses.replace(Profile.load('compact'), prompts=StageConfig('score_detector'))
    pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
    (result,) = pipeline(probe_frames()[0])
    assert len(result.boxes) >= 1
