# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The masks stage in the pipeline: the paper's prompts, nothing to do, scene cuts."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from ood_perception import Pipeline, Profile
from ood_perception.masks.rcnn_prompts import RCNNPrompts
from ood_perception.models import create_model
from ood_perception.profile import StageConfig
from ood_perception.result import SURROUNDINGS
from ood_perception.scores import ScoreModule

torch.set_num_threads(1)


class Painted(ScoreModule):
    """Score that is high where the frame is red, whatever the network says."""

    def __init__(self, images: list[torch.Tensor]) -> None:
        super().__init__()
        self.images = images

    def forward(self, output: object, size: tuple[int, int], streams: object) -> torch.Tensor:
        red = torch.stack([i[0].float() - i[1].float() for i in self.images])
        return torch.where(red > 100, 8.0, -8.0)


@pytest.fixture(scope='module')
def profile(tmp_path_factory):
    torch.manual_seed(0)
    compact = Profile.load('compact')
    model = create_model('compact', **compact.segmentor.options)
    state = {k: v for k, v in model.state_dict().items() if k.startswith(('fpn.', 'uem.'))}
    path = tmp_path_factory.mktemp('weights') / 'random.safetensors'
    save_file(state, path)
    return dataclasses.replace(
        compact,
        segmentor=dataclasses.replace(compact.segmentor, weights=str(path)),
        prompts=StageConfig('score_detector'),  # sees the painted score
        image=dataclasses.replace(compact.image, short_side=96, max_long_side=160),
        calibration=dataclasses.replace(compact.calibration, slope=1.0, offset=0.0),
    )


def red_thing(x: int, seed: int = 0) -> np.ndarray:
    """Grey noise (96, 128, 3) with a red square of 24 pixels, in coarse blocks."""
    rng = np.random.default_rng(seed)
    image = np.kron(rng.integers(40, 200, (6, 8)), np.ones((16, 16))).astype(np.uint8)
    image = np.repeat(image[..., None], 3, 2)
    image[40:64, x : x + 24] = 220, 20, 20
    return image


def painted(profile: Profile) -> Pipeline:
    """Pipeline whose score is told by the frame itself; every other stage is the real one."""
    pipeline = Pipeline.from_profile(profile, 'cpu', 'eager')
    images: list[torch.Tensor] = []
    pipeline.score = Painted(images)
    upload = pipeline._upload

    def seen(frames, size):
        images[:] = list(upload(frames, size))
        return torch.stack(images)

    pipeline._upload = seen
    return pipeline


def test_an_object_keeps_its_id_until_the_scene_is_cut(profile):
    pipeline = painted(profile)
    ids = []
    for x in (20, 24, 28, 32):
        (result,) = pipeline(red_thing(x), streams=['a'])
        ids.append(result.ids.tolist())
        truth = np.zeros((96, 128), bool)
        truth[40:64, x : x + 24] = True
        found = result.instances == result.ids[0]
        assert (found & truth).sum() / (found | truth).sum() > 0.6
    assert ids == [[1]] * 4
    (other,) = pipeline(red_thing(32), streams=['b'])
    (cut,) = pipeline(red_thing(32, seed=1), streams=['a'])
    assert other.ids.tolist() == [1]
    assert cut.ids.tolist() == [2]
    pipeline.reset('a')
    (fresh,) = pipeline(red_thing(32), streams=['a'])
    assert fresh.ids.tolist() == [3]


def test_nothing_runs_when_nothing_is_anomalous(profile):
    pipeline = painted(profile)
    calls = []
    pipeline.outliner.mask_model.forward = lambda *_: calls.append('masks')
    (result,) = pipeline(np.full((96, 128, 3), 90, np.uint8))
    assert not calls
    assert not result.instances.any()
    assert len(result.ids) == 0


def test_the_paper_s_prompts_from_end_to_end(profile):
    torch.manual_seed(0)
    config = StageConfig('faster_rcnn', options={'slots': 6, 'threshold': 0.0})
    paper = dataclasses.replace(profile, prompts=config)
    pipeline = painted(paper)
    assert isinstance(pipeline.outliner.prompts, RCNNPrompts)
    detector = pipeline.outliner.prompts.detector
    with torch.no_grad():
        # Random heads are sure of the background: make every class as likely, boxes the anchors.
        for layer in (detector.roi_heads.box_predictor.cls_score, detector.rpn.head.bbox_pred):
            layer.weight.zero_()
            layer.bias.zero_()
        detector.roi_heads.box_predictor.bbox_pred.weight.zero_()
    fed = []
    detector.register_forward_pre_hook(lambda _, inputs: fed.append(inputs[0].clone()))
    (result,) = pipeline(red_thing(20))
    count = len(result.ids)
    assert result.boxes.shape == (count, 4)
    assert set(np.unique(result.instances)) - {0} == set(result.ids.tolist())
    score = torch.randn(2, 96, 128)
    score[1, 30, 40] = float('nan')
    picture = torch.zeros(2, 3, 96, 128, dtype=torch.uint8)
    boxes = pipeline.outliner.prompts(picture, score, score)
    assert boxes.boxes.shape == (2, 6, 4)
    assert boxes.valid.all()
    assert boxes.confidences.flatten().tolist() == pytest.approx([1 / 3] * 12)
    assert torch.isfinite(boxes.boxes).all()
    limit = torch.tensor([128, 96, 128, 96])
    assert (boxes.boxes <= limit).all()
    # fed as the paper does: the raw score, at the frame's own size
    assert fed[0].shape == (1, 96, 128)
    assert fed[0].unique().tolist() == [-8, 8]
    finite = torch.isfinite(score)
    assert torch.equal(fed[1][finite], score[finite])
    assert float(fed[1][1, 30, 40]) == float(score[finite].min())
    for flat in (0.0, float('nan'), float('inf')):
        same = pipeline.outliner.prompts(picture, torch.full((1, 40, 50), flat), score)
        assert torch.isfinite(same.boxes).all()


@pytest.mark.parametrize(
    ('classes', 'ground', 'expected'),
    [
        (['sky', 'road', 'pavement'], ['road', 'pavement'], 'on_road'),
        (['sky', 'road', 'sidewalk'], ['road', 'sidewalk'], 'on_road'),
        (['sky', 'ground', 'other_ground'], ['ground', 'other_ground'], 'on_road'),
        (['sky', 'ground', 'other_ground'], ['sky'], 'beside'),
        (['sky', 'road', 'pavement'], [], 'none'),
    ],
)
def test_surroundings_follow_the_ground_classes_of_the_profile(
    profile, monkeypatch, classes, ground, expected
):
    names = [*classes, *(f'class {i}' for i in range(8))]
    named = dataclasses.replace(profile, classes=names, ground_classes=ground)
    pipeline = painted(named)
    semantic = torch.full((1, 96, 128), 2, dtype=torch.uint8)
    semantic[:, :10] = 0
    monkeypatch.setattr('ood_perception.pipeline.semantic_map', lambda *_, **__: semantic)
    (result,) = pipeline(red_thing(20))
    assert [SURROUNDINGS[code] for code in result.surroundings] == [expected]
