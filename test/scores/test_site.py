# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from ood_evaluation.pixel_metrics import PixelMetrics
from ood_perception.models.output import SegmentorOutput
from ood_perception.pipeline import Pipeline
from ood_perception.profile import ImageConfig, Profile
from ood_perception.scores import create_score
from ood_perception.scores.logits import LikelihoodRatio
from ood_perception.scores.novelty import SiteScore
from ood_perception.scores.tokens import projection
from ood_simulation import ProvingGround

SIZE = (24, 40)


def scene(seed: int, strange: bool = False) -> SegmentorOutput:
    """Walls and floors; a pillar (columns 2, 3) of high ratio; a thing (columns 7, 8)."""
    g = torch.Generator().manual_seed(seed)
    kinds = torch.randn(6, 16, generator=torch.Generator().manual_seed(7))
    which = torch.zeros(6, 10, dtype=torch.long)
    which[:3, 5:], which[3:, :5], which[3:, 5:] = 1, 4, 5
    which[:, 2:4] = 2
    if strange:
        which[2:5, 7:9] = 3
    features = kinds[which] + 0.05 * torch.randn(6, 10, 16, generator=g)
    ood = torch.zeros(1, 2, 6, 10)
    ood[0, 1] = torch.tensor([-4.0, -4.0, 5.0, 4.0, -4.0, -4.0])[which]
    return SegmentorOutput(
        [features.movedim(-1, 0)[None]], logits=torch.zeros(1, 3, 6, 10), ood=ood
    )


def taught(frames: int = 12) -> SiteScore:
    score = SiteScore(stages=(0,))
    score.start()
    for seed in range(frames):
        score(scene(seed), SIZE)
    score.stop()
    return score


def test_it_is_the_ratio_until_it_is_taught() -> None:
    score, ratio = SiteScore(stages=(0,)), LikelihoodRatio(exact=False)
    output = scene(0, strange=True)
    assert torch.equal(score(output, SIZE), ratio(output, SIZE))
    assert score.judges_untaught
    assert 'nothing normal was learnt' in score.problem


def test_what_stands_there_every_day_stops_alarming_and_what_is_new_does_not() -> None:
    output = scene(99, strange=True)
    before = LikelihoodRatio(exact=False)(output, SIZE)[0]
    after = taught()(output, SIZE)[0]
    pillar, thing = (slice(None), slice(10, 14)), (slice(10, 18), slice(30, 34))
    assert before[pillar].min() > before[thing].max()  # the pillar is the more unknown of the two
    assert after[pillar].max() < after[thing].min()
    assert after[thing].min() > before[thing].min() - 0.1
    assert (after <= before).all()  # being new alone is no alarm


def test_a_memory_is_read_back_as_it_was(tmp_path: Path) -> None:
    score, path = taught(), str(tmp_path / 'site.safetensors')
    score.save(path)
    other = create_score('site', stages=(0,), weights=path)
    assert (other.frames, other.size, other.poor) == (12, score.size, '')
    output = scene(50, strange=True)
    assert torch.equal(other(output, SIZE), score(output, SIZE))
    assert [p.name for p in tmp_path.iterdir()] == ['site.safetensors']
    kinds = r'project: 0, position: 0, depth: 0, this profile has stages \[0\], project: 8'
    with pytest.raises(ValueError, match=kinds):
        create_score('site', stages=(0,), project=8, weights=path)


def test_another_place_raises_doubt_and_the_same_does_not() -> None:
    score = taught(60)
    for seed in range(200):
        score(scene(1000 + seed, strange=True), SIZE)
    assert score.doubt == ''
    elsewhere = scene(0)
    elsewhere.features[0] = torch.randn(1, 16, 6, 10)
    for _ in range(200):
        score(elsewhere, SIZE)
    assert 'was the camera moved' in score.doubt


def test_too_little_is_told() -> None:
    score = SiteScore(stages=(0,))
    score.start()
    score(scene(0), SIZE)
    assert '1 frames that show something were seen' in score.poor


def test_what_is_accepted_is_normal_and_nothing_else_changes() -> None:
    score, output = taught(), scene(99, strange=True)
    before, usual = score(output, SIZE)[0], score.memory.moments.tolist()
    mask = torch.zeros(SIZE, dtype=torch.bool)
    mask[8:20, 28:36] = True
    score.accepting = mask
    score(output, SIZE)
    assert (score.memory.moments.tolist(), score.frames, score.accepting) == (usual, 12, None)
    after = score(scene(98, strange=True), SIZE)[0]
    thing = (slice(10, 18), slice(30, 34))
    assert after[thing].max() < before[thing].min() - 3
    assert score(output, SIZE)[0, :, :8].max() == pytest.approx(before[:, :8].max(), abs=0.5)


def test_two_robots_know_what_each_has_seen() -> None:
    here, there = taught(), SiteScore(stages=(0,))
    there.start()
    for seed in range(12):
        there(scene(seed, strange=True), SIZE)
    alone, size, frames = here(scene(99, strange=True), SIZE)[0], here.size, here.frames
    here.memory.merge(there.memory)
    both = here(scene(99, strange=True), SIZE)[0]
    assert size < here.size < size + there.size  # what both know is kept once
    assert here.frames == frames + there.frames
    assert both[10:18, 30:34].max() < alone[10:18, 30:34].min() - 3
    other = SiteScore(stages=(0,), project=8)
    with pytest.raises(ValueError, match='memories of two kinds'):
        here.memory.merge(other.memory)


def test_levels_outlive_thinning() -> None:
    score = SiteScore(stages=(0,), capacity=3)
    score.start()
    for seed in range(30):
        score(scene(seed), SIZE)
    assert score.size <= 3
    assert float(score.memory.level.max()) > 3.0  # 5 in the middle of the pillar


def test_the_projection_keeps_distances() -> None:
    g = torch.Generator().manual_seed(0)
    tokens = torch.nn.functional.normalize(torch.randn(200, 472, generator=g), dim=1)
    before, after = torch.pdist(tokens), torch.pdist(tokens @ projection(472, 64))
    assert float((after / before).mean()) == pytest.approx(1.0, abs=0.03)
    assert float((after / before).std()) < 0.12


def test_the_shipped_profile_learns_a_street_and_lowers_its_false_alarms() -> None:
    """The real weights: a street's own most unknown places stop to stand out after teaching."""
    small = dataclasses.replace(Profile.load('compact_site'), image=ImageConfig(192))
    pipeline = Pipeline.from_profile(small, 'cpu', 'eager')
    ground = ProvingGround(2001, 256, 192, rate=2, unknowns=0)
    (untaught,) = pipeline(ground.frame(21).image, wants={'score'})
    pipeline.score.start()
    for i in range(16, 28, 2):
        pipeline(ground.frame(i).image, wants={'score'})
    pipeline.score.stop()
    assert pipeline.score.poor == ''
    (after,) = pipeline(ground.frame(21).image, wants={'score'})
    assert np.quantile(after.score, 0.999) < np.quantile(untaught.score, 0.999)
    # another resolution of the same camera
    halved = cv2.resize(ground.frame(21).image, (128, 96), interpolation=cv2.INTER_AREA)
    (half,) = pipeline(halved)
    assert (pipeline.score.problem, half.score.shape) == ('', (96, 128))
    assert np.quantile(half.score, 0.999) < np.quantile(untaught.score, 0.999)


def test_the_shipped_profile_with_depth_sees_what_stands_on_a_known_street() -> None:
    """The real weights: with depth, less of what is new is taken for the known street."""
    small = dataclasses.replace(Profile.load('compact_site_depth'), image=ImageConfig(192))
    pipeline = Pipeline.from_profile(small, 'cpu', 'eager')
    empty, street = (ProvingGround(2004, 256, 192, rate=2, unknowns=n) for n in (0, 3.0))
    learnt = [empty.frame(i) for i in range(16, 32)]
    pipeline.score.start()
    for frame in learnt:
        pipeline(frame.image, wants={'score'}, depths=[frame.depth])
    pipeline.score.stop()
    shown = [street.frame(i) for i in range(16, 32)]
    found = []
    for depths in ([None] * len(shown), [f.depth for f in shown]):
        metrics = PixelMetrics()
        for frame, depth in zip(shown, depths, strict=True):
            (result,) = pipeline(frame.image, wants={'score'}, depths=[depth])
            metrics.update(result.score, frame.anomaly)
        found.append(float(metrics.compute()['ap']))
    without, with_depth = found
    assert with_depth > without
