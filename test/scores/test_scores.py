# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores import SCORES, ScoreModule, create_score, learns, log_likelihood_ratio

SIZE = (24, 32)


def output(seed: int = 0, batch: int = 2) -> SegmentorOutput:
    g = torch.Generator().manual_seed(seed)
    return SegmentorOutput(
        features=[
            torch.randn(batch, 6, 12, 16, generator=g),
            torch.randn(batch, 10, 6, 8, generator=g),
        ],
        logits=4 * torch.randn(batch, 5, 6, 8, generator=g),
        ood=torch.randn(batch, 2, 12, 16, generator=g),
    )


def up(x: torch.Tensor) -> torch.Tensor:
    return F.interpolate(x, SIZE, mode='bilinear', align_corners=False)


DEFINITIONS = {
    'llr': lambda o: up(o.ood)[:, 1] - up(o.ood)[:, 0] - up(o.logits).max(1).values,
    'uem': lambda o: up(o.ood)[:, 1] - up(o.ood)[:, 0],
    'max_logit': lambda o: -up(o.logits).max(1).values,
    'max_softmax': lambda o: 1 - torch.softmax(up(o.logits), 1).max(1).values,
    'entropy': lambda o: (
        torch.distributions.Categorical(logits=up(o.logits).movedim(1, -1)).entropy() / np.log(5)
    ),
    'energy': lambda o: -torch.logsumexp(up(o.logits), 1),
    'max_logit_minus_mean': lambda o: up(o.logits).mean(1) - up(o.logits).max(1).values,
}


@pytest.mark.parametrize('name', DEFINITIONS)
def test_score_equals_its_definition(name: str) -> None:
    o = output()
    got = create_score(name)(o, SIZE, ['a', 'b'])
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, DEFINITIONS[name](o), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', [n for n in DEFINITIONS if n != 'uem'])
def test_inexact_is_the_same_where_nothing_is_resized(name: str) -> None:
    o = output()
    o.logits, o.ood = up(o.logits), up(o.ood)
    exact, fast = create_score(name), create_score(name, exact=False)
    torch.testing.assert_close(exact(o, SIZE), fast(o, SIZE), atol=1e-5, rtol=1e-5)


def ready(name: str):
    score = create_score(name, **({'n_clusters': 4} if name == 'clusters' else {}))
    if learns(score):
        score.start()
        score(output(), SIZE)
        score.stop()
    return score


@pytest.mark.parametrize('name', SCORES)
def test_every_score_has_the_same_signature(name: str) -> None:
    score = ready(name)
    got = score(output(1), SIZE, ['a', 'b'])
    assert got.shape == (2, *SIZE)
    assert got.dtype == torch.float32
    assert torch.isfinite(got).all()
    score.identify('a model')
    score.reset('a')
    score.reset()
    without = output(1)
    without.features = []
    if not score.needs_features:
        assert torch.equal(score(without, SIZE, ['a', 'b']), got)


def test_a_score_of_twenty_lines_runs_in_the_pipeline() -> None:
    """A new score derives from `ScoreModule`, stands in the table and is named in a profile."""
    from ood_perception import Pipeline, Profile

    class Brightness(ScoreModule):
        def forward(self, output, size, streams=()):
            return torch.full((len(streams), *size), 7.0)

    tree = {**Profile.load('compact').to_dict(), 'score': {'name': 'brightness'}}
    SCORES['brightness'] = Brightness
    try:
        pipeline = Pipeline.from_profile(Profile.from_dict(tree), 'cpu', 'eager')
    finally:
        del SCORES['brightness']
    (result,) = pipeline(np.zeros((64, 96, 3), np.uint8), wants={'score'})
    assert (result.score == 7).all()


@pytest.mark.parametrize('dtype', [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize('with_classes', [True, False])
def test_log_likelihood_ratio_is_that_of_the_paper_in_float64(dtype, with_classes) -> None:
    o = output()
    logits, ood = o.logits.to(dtype), o.ood.to(dtype)
    got = log_likelihood_ratio(logits if with_classes else None, ood, SIZE)
    assert got.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    u, f = up(ood.double()), up(logits.double())
    want = u[:, 1] - u[:, 0] - (f.amax(1) if with_classes else 0)
    torch.testing.assert_close(got.double(), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize('name', [n for n in SCORES if n not in ('llr', 'uem')])
def test_nan_features_do_not_spread(name: str) -> None:
    score = ready(name)
    o = output(2)
    o.features[0][0, :, 3, 4] = float('nan')
    o.features[1][0, :, 2, 2] = float('inf')
    assert torch.isfinite(score(o, SIZE, ['a', 'b'])).all()


@pytest.mark.parametrize('name', ['llr', 'uem', 'max_logit', 'clusters', 'novelty'])
def test_what_the_segmentor_lacks_is_named(name: str) -> None:
    with pytest.raises(ValueError, match=f'score (of logits|{name})'):
        create_score(name)(SegmentorOutput(), SIZE)


def test_unknown_score() -> None:
    with pytest.raises(ValueError, match=r"expected one of llr.*got 'lrr'"):
        create_score('lrr')


def test_clusters_give_a_region_its_mean_confidence() -> None:
    features = torch.zeros(1, 3, 8, 8)
    features[:, 0], features[:, :, :, 4:] = 1, 0
    features[:, 1, :, 4:] = 1
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 0] = 5
    logits[:, 0, :, 4:] = torch.rand(8, 4, generator=torch.Generator().manual_seed(0))
    o = SegmentorOutput([features], logits)
    score = create_score('clusters', n_clusters=2, stages=(0,), weight=1.0)
    got = score(o, (8, 8), ['a'])[0]
    torch.testing.assert_close(got[:, :4], torch.full((8, 4), -5.0))
    torch.testing.assert_close(got[:, 4:], -logits[0, 0, :, 4:].mean().expand(8, 4))


def two_regions(confidence: float, right: float = 1.0) -> SegmentorOutput:
    features = torch.zeros(1, 2, 8, 8)
    features[:, 0], features[:, 0, :, 4:] = 1, 0
    features[:, 1, :, 4:] = right
    logits = torch.zeros(1, 2, 8, 8)
    logits[:, 0], logits[:, 0, :, 4:] = 5, confidence
    return SegmentorOutput([features], logits)


def test_confidence_of_a_cluster_is_remembered_until_the_clusters_start_anew() -> None:
    options = {'n_clusters': 2, 'stages': (0,), 'weight': 1.0, 'memory': 0.75, 'cut_ratio': 0}
    score = create_score('clusters', **options)
    wanted = 1.0
    for confidence in (1.0, 3.0, 2.0):
        wanted = 0.75 * wanted + 0.25 * confidence if confidence != 1.0 else 1.0
        got = score(two_regions(confidence), (8, 8), ['a'])[0, 4, 6]
        assert float(got) == pytest.approx(-wanted, rel=1e-5)
    other = score(two_regions(4.0), (8, 8), ['b'])[0, 4, 6]
    assert float(other) == pytest.approx(-4.0)
    score.reset('a')
    assert float(score(two_regions(2.5), (8, 8), ['a'])[0, 4, 6]) == pytest.approx(-2.5)
    per_image = create_score('clusters', **{**options, 'streaming': False})
    for confidence in (1.0, 3.0):
        got = per_image(two_regions(confidence), (8, 8), ['a'])[0, 4, 6]
        assert float(got) == pytest.approx(-confidence)


def test_remembered_confidences_are_bounded_by_the_streams() -> None:
    score = create_score('clusters', n_clusters=2, stages=(0,), max_streams=3)
    for i in range(10):
        score(two_regions(1.0), (8, 8), [f'camera {i}'])
    assert len(score._past) == 3


@pytest.mark.parametrize('memory', [-0.1, 1.0])
def test_memory_of_clusters_out_of_range(memory: float) -> None:
    with pytest.raises(ValueError, match='memory: expected 0 <= memory < 1'):
        create_score('clusters', n_clusters=2, memory=memory)


def test_streaming_clusters_flicker_less_than_clusters_of_each_image() -> None:
    base = output(3, batch=1)
    flicker = {}
    for streaming in (True, False):
        score = create_score('clusters', n_clusters=6, streaming=streaming, weight=1.0, seed=0)
        before, change = None, []
        for frame in range(6):
            g = torch.Generator().manual_seed(frame)
            features = [f + 0.2 * torch.randn(f.shape, generator=g) for f in base.features]
            now = score(SegmentorOutput(features, base.logits), SIZE, ['a'])
            if before is not None:
                change.append(float((now - before).abs().mean()))
            before = now
        flicker[streaming] = np.mean(change)
    assert flicker[True] < flicker[False]


def test_score_of_the_documentation_works() -> None:
    page = Path(__file__).resolve().parents[2] / 'docs' / 'scores.md'
    (block,) = re.findall(r'```python\n(.*?)```', page.read_text(encoding='utf-8'), re.DOTALL)
    try:
        exec(compile(block, page.name, 'exec'), {'__name__': 'scores_page'})
        got = create_score('loneliness')(output(), SIZE)
    finally:
        SCORES.pop('loneliness', None)
    assert got.shape == (2, *SIZE)
    assert got.dtype == torch.float32
    assert float(got.std()) > 0


def test_every_score_is_documented() -> None:
    page = (Path(__file__).resolve().parents[2] / 'docs' / 'scores.md').read_text(encoding='utf-8')
    assert set(re.findall(r'^\| `(\w+)` \|', page, re.MULTILINE)) >= set(SCORES)


def test_auto_camera_names() -> None:
    score = create_score('clusters', n_clusters=3)
    assert score(output(batch=3), SIZE).shape == (3, *SIZE)
