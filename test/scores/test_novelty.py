# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import hashlib
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ood_perception.building import model_identity
from ood_perception.models.output import InputSpec, SegmentorOutput
from ood_perception.pipeline import Pipeline
from ood_perception.profile import Profile, ProfileError, ScoreConfig, StageConfig
from ood_perception.scores import create_score
from ood_perception.scores.novelty import NoveltyScore
from ood_perception.scores.tokens import FARTHEST, TokenBank, squared_distances, thin, token_depths


def normal(seed: int) -> SegmentorOutput:
    """Features near five directions."""
    g = torch.Generator().manual_seed(seed)
    directions = torch.randn(5, 16, generator=torch.Generator().manual_seed(99))
    which = torch.randint(0, 5, (1, 8, 10), generator=g)
    features = directions[which] + 0.1 * torch.randn(1, 8, 10, 16, generator=g)
    return SegmentorOutput([features.movedim(-1, 1)])


def test_new_things_are_far() -> None:
    memory = NoveltyScore(stages=(0,))
    memory.start()
    for seed in range(10):
        memory(normal(seed), (8, 10))
    memory.stop()
    assert memory.size >= 5  # one for each direction at least
    size = memory.size
    known = memory(normal(50), (8, 10))
    strange = normal(51)
    strange.features[0][0, :, 2:5, 2:5] = torch.randn(16, 1, 1)
    got = memory(strange, (8, 10))[0]
    assert memory.size == size  # it learns only when told to
    assert float(got[2:5, 2:5].min()) > float(known.max())


def test_distance_equals_scikit_learn() -> None:
    g = torch.Generator().manual_seed(0)
    bank, tokens = torch.randn(50, 8, generator=g), torch.randn(70, 8, generator=g)
    memory = TokenBank(50, [0])
    memory.bank = bank
    for k in (1, 5):
        oracle = NearestNeighbors(n_neighbors=k).fit(bank.numpy()).kneighbors(tokens.numpy())[0]
        np.testing.assert_allclose(memory.nearest(tokens, k)[0].numpy(), oracle, atol=1e-4)


def test_memory_is_bounded_and_covers_what_was_seen() -> None:
    memory = NoveltyScore(capacity=40, stages=(0,))
    memory.start()
    g = torch.Generator().manual_seed(0)
    frames = [SegmentorOutput([torch.randn(1, 6, 8, 8, generator=g)]) for _ in range(300)]
    for frame in frames:
        memory.learn(frame)
        assert memory.size <= 40
    # flat: nothing else grows with the frames
    kept = [v for v in vars(memory.memory).values() if isinstance(v, torch.Tensor)]
    assert sum(v.nelement() for v in kept) <= 40 * (6 + 1) + 3 + 3 + 3
    spacing = torch.pdist(memory.memory.bank)
    tokens = torch.cat([f.features[0] for f in frames]).movedim(1, -1).reshape(-1, 6)
    tokens = torch.nn.functional.normalize(tokens, dim=1)
    reach = memory.memory.nearest(tokens)[0]
    assert float(spacing.min()) > 0
    # the doubling algorithm: everything is within a few radii of what is kept
    assert float(reach.max()) <= 4 * memory.memory.radius


def test_thin_keeps_the_oldest_and_the_spacing() -> None:
    bank = torch.tensor([[0.0], [0.1], [1.0], [1.05], [3.0]])
    assert bank[thin(torch.cdist(bank, bank), 0.5)].flatten().tolist() == [0.0, 1.0, 3.0]


def test_saved_memory_scores_the_same(tmp_path: Path) -> None:
    memory = NoveltyScore(stages=(0,))
    memory.start()
    memory(normal(0), (8, 10))
    memory.stop()
    path = tmp_path / 'memory.safetensors'
    memory.save(str(path))
    other = NoveltyScore(stages=(0,), weights=str(path))
    assert torch.equal(other(normal(1), (8, 10)), memory(normal(1), (8, 10)))


def test_what_is_normal_below_is_not_normal_above_where_the_place_counts(tmp_path: Path) -> None:
    a, b = torch.eye(16)[:2, :, None, None]

    def halves(above: torch.Tensor, below: torch.Tensor) -> SegmentorOutput:
        above, below = (half.expand(16, 4, 10) for half in (above, below))
        return SegmentorOutput([torch.cat([above, below], 1)[None]])

    usual, turned, size = halves(a, b), halves(b, a), (8, 10)
    found = {}
    for position in (0.0, 0.4):
        memory = NoveltyScore(stages=(0,), position=position)
        memory.start()
        for _ in range(5):
            memory(usual, size)
        memory.stop()
        found[position] = memory(turned, size) - memory(usual, size)
    assert not found[0.0].any()
    # A soft prior: the farther from where it belongs, the more.
    rows = found[0.4][0].mean(1)
    assert (rows > 0).all()
    assert (rows[:4].diff() < 0).all()
    assert (rows[4:].diff() > 0).all()
    path = str(tmp_path / 'memory.safetensors')
    memory.save(path)
    other = NoveltyScore(stages=(0,), position=0.4, weights=path)
    assert torch.equal(other(turned, size), memory(turned, size))
    kinds = r'position: 0\.4, depth: 0, this profile has .* position: 0, depth: 0; learn anew'
    with pytest.raises(ValueError, match=kinds):
        NoveltyScore(stages=(0,)).load(path)
    with pytest.raises(ValueError, match='of two kinds'):
        TokenBank.read(path, 10).merge(TokenBank(10, [0]))
    with pytest.raises(ValueError, match=r'position: expected 0\.\.1, got -1'):
        NoveltyScore(position=-1)


def test_depth_counts_where_both_know_it() -> None:
    g = torch.Generator().manual_seed(1)
    tokens, bank = torch.randn(40, 7, generator=g), torch.randn(30, 7, generator=g)
    tokens[::3, -1] = torch.nan
    bank[::4, -1] = torch.nan
    got = squared_distances(tokens, bank, depth=True)
    for i, a in enumerate(tokens):
        for j, b in enumerate(bank):
            want = (a - b).square()
            want = want if bool(want.isfinite().all()) else want[:-1]
            assert float(got[i, j]) == pytest.approx(float(want.sum()), abs=1e-4)


def test_depth_of_a_token_is_the_mean_of_what_was_measured() -> None:
    depth = torch.full((3, 16, 24), 4.0)
    depth[0, :, 11:] = torch.nan  # holes are as far as can be, like the sky and the far end
    depth[1, :, :8], depth[1, :, 8:16] = torch.inf, 40.0
    depth[1, ::4, 20:] = torch.nan  # a few holes are none
    depth[2] = torch.nan  # nothing was measured
    got = token_depths(depth, torch.zeros(3, 5, 2, 3)).exp()[:, 0]
    far = FARTHEST
    torch.testing.assert_close(got[0], torch.tensor([[4.0, far, far], [4.0, far, far]]))
    torch.testing.assert_close(got[1], torch.tensor([[far, far, 4.0], [far, far, 4.0]]))
    assert got[2].isnan().all()


def with_depth(seed: int, depth: torch.Tensor | None) -> SegmentorOutput:
    output = normal(seed)
    output.depth = depth
    return output


def test_what_looks_as_usual_but_stands_nearer_is_new(tmp_path: Path) -> None:
    floor = torch.linspace(8, 2, 16)[None, :, None].expand(1, 16, 20).contiguous()
    box = floor.clone()
    box[:, 4:8, 8:12] = 3.0  # in front of a floor that is six metres away
    plain, memory = NoveltyScore(stages=(0,)), NoveltyScore(stages=(0,), position=0.4, depth=0.8)
    assert (plain.needs_depth, memory.needs_depth) == (False, True)
    for score in (plain, memory):
        score.start()
        for seed in range(10):
            score(with_depth(seed, floor), (8, 10))
        score.stop()
    assert torch.equal(*(plain(with_depth(50, d), (8, 10)) for d in (floor, box)))
    usual, got = (memory(with_depth(50, d), (8, 10))[0] for d in (floor, box))
    assert float(got[2:4, 4:6].min()) > float(usual.max())
    rest = torch.ones(8, 10, dtype=torch.bool)
    rest[1:5, 3:7] = False
    torch.testing.assert_close(got[rest], usual[rest])
    # Without depth it judges by what is left, and on the scale of that.
    blind = memory(with_depth(50, None), (8, 10))[0]
    assert abs(float(blind.mean() - usual.mean())) < 1.0
    strange = with_depth(51, None)
    strange.features[0][0, :, 2:5, 2:5] = torch.randn(16, 1, 1)
    assert float(memory(strange, (8, 10))[0, 2:5, 2:5].min()) > float(blind.max())
    path = str(tmp_path / 'memory.safetensors')
    memory.save(path)
    other = NoveltyScore(stages=(0,), position=0.4, depth=0.8, weights=path)
    for depth in (box, None):
        again = (m(with_depth(52, depth), (8, 10)) for m in (memory, other))
        assert torch.equal(*again)
    with pytest.raises(ValueError, match=r'depth: 0\.8, this profile has .* depth: 0; learn anew'):
        NoveltyScore(stages=(0,), position=0.4).load(path)
    with pytest.raises(ValueError, match=r'depth: expected 0\.\.4, got 5'):
        NoveltyScore(depth=5)


def test_a_memory_of_depth_says_when_none_comes() -> None:
    floor = torch.full((1, 16, 20), 3.0)
    memory = NoveltyScore(stages=(0,), depth=0.8)
    memory.start()
    for seed in range(10):
        memory(with_depth(seed, floor if seed % 2 else None), (8, 10))
    memory.stop()
    assert memory.doubt == ''
    for seed in range(60):
        memory(with_depth(seed, None), (8, 10))
    assert 'without the depth' in memory.doubt
    assert 'set parameter depth' in memory.doubt
    for seed in range(60):
        memory(with_depth(seed, floor), (8, 10))
    assert memory.doubt == ''


def test_a_memory_of_depth_does_not_learn_without() -> None:
    memory = NoveltyScore(stages=(0,), depth=0.8)
    memory.start()
    for seed in range(10):
        memory(with_depth(seed, None), (8, 10))
    assert (memory.size, memory.frames) == (0, 0)
    assert 'does depth come?' in memory.poor
    for seed in range(10):
        memory(with_depth(seed, torch.full((1, 16, 20), 3.0)), (8, 10))
        memory(with_depth(seed, None), (8, 10))
    assert (memory.frames, memory.poor) == (10, '')
    assert memory.memory.bank.isfinite().all()


def test_bad_memories_are_refused(tmp_path: Path) -> None:
    memory = NoveltyScore(stages=(0,))
    with pytest.raises(ValueError, match='nothing was learnt'):
        memory.save(str(tmp_path / 'x'))
    memory.learn(normal(0))
    path = tmp_path / 'memory.safetensors'
    memory.save(str(path))
    rest = 'project: 0, position: 0, depth: 0'
    kinds = rf'with stages \[0\], {rest}, this profile has stages \[-1\], {rest}; learn anew'
    with pytest.raises(ValueError, match=kinds):
        NoveltyScore(stages=(-1,)).load(str(path))
    broken = tmp_path / 'broken.safetensors'
    broken.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match='no safetensors file'):
        memory.load(str(broken))
    assert memory.size > 0


@pytest.mark.parametrize(
    'features', [torch.zeros(1, 4, 3, 3), torch.full((1, 4, 3, 3), float('nan'))]
)
def test_constant_and_nan_features(features: torch.Tensor) -> None:
    memory = NoveltyScore(stages=(0,))
    memory.start()
    got = memory(SegmentorOutput([features]), (6, 6))
    assert torch.isfinite(got).all()
    memory.stop()
    assert torch.isfinite(memory(SegmentorOutput([torch.randn(1, 4, 3, 3)]), (6, 6))).all()


def test_empty_memory_scores_zero() -> None:
    assert not NoveltyScore(stages=(0,))(normal(0), (4, 4)).any()


@pytest.mark.parametrize('name', ['novelty', 'knn'])
def test_another_feature_width_scores_zero_and_is_logged_once(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    score = create_score(name, stages=(0,))
    known, other = normal(0), SegmentorOutput([torch.randn(1, 9, 4, 4)])
    assert 'nothing normal was learnt' in score.problem
    score.learn(known)
    assert score.problem == ''
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert torch.equal(score(other, (6, 6)), torch.zeros(1, 6, 6))
    assert len(caplog.records) == 1
    assert 'holds 16 features, the model gives 9' in caplog.text
    assert 'another model' in score.problem
    assert score(known, (8, 10)).any()
    assert score.problem == ''


def test_learning_leaves_another_feature_width_out() -> None:
    memory = NoveltyScore(stages=(0,))
    memory.start()
    memory(normal(0), (8, 10))
    size = memory.size
    memory(SegmentorOutput([torch.randn(1, 9, 4, 4)]), (4, 4))
    assert memory.size == size
    memory.start()
    memory(SegmentorOutput([torch.randn(1, 9, 4, 4)]), (4, 4))
    assert memory.memory.bank.shape[1] == 9


def test_memory_of_another_model_is_refused_when_read(tmp_path: Path) -> None:
    path = str(tmp_path / 'memory.safetensors')
    memory = NoveltyScore(stages=(0,))
    memory.identify('compact 0123')
    memory.start()
    memory(normal(0), (8, 10))
    memory.save(path)
    same, other, unnamed = (NoveltyScore(stages=(0,)) for _ in range(3))
    same.identify('compact 0123')
    same.load(path)
    assert same.size == memory.size
    other.identify('dinov2 4567')
    with pytest.raises(ValueError, match=r"'compact 0123', this one is 'dinov2 4567'; learn anew"):
        other.load(path)
    assert other.size == 0
    unnamed.load(path)
    with pytest.raises(ValueError, match='novelty: the state was learnt with the model'):
        unnamed.identify('dinov2 4567')
    narrow = NoveltyScore(stages=(0,))
    narrow(SegmentorOutput([torch.randn(1, 9, 4, 4)]), (4, 4))
    with pytest.raises(ValueError, match='holds 16 features, the model gives 9'):
        narrow.load(path)


class Tiny(torch.nn.Module):
    """A segmentor of one feature map of 3 channels."""

    spec = InputSpec()

    def forward(self, images: torch.Tensor) -> SegmentorOutput:
        return SegmentorOutput([images[:, :, ::4, ::4]])


def test_pipeline_refuses_a_memory_of_another_model_while_it_is_built(tmp_path: Path) -> None:
    def build(segmentor: str, weights: str) -> Pipeline:
        score = ScoreConfig('novelty', weights, {'stages': [0]})
        profile = Profile(name='tiny', segmentor=StageConfig(segmentor), score=score)
        return Pipeline(profile, Tiny(), torch.device('cpu'), 'eager')

    rng = np.random.default_rng(0)
    pipeline = build('tiny', '')
    pipeline.score.start()
    pipeline(rng.integers(0, 256, (40, 48, 3), dtype=np.uint8), wants={'score'})
    path = str(tmp_path / 'memory.safetensors')
    pipeline.score.save(path)
    assert build('tiny', path).score.size == pipeline.score.size
    with pytest.raises(ProfileError, match=r"score\.weights: .*'tiny', this one is 'other'"):
        build('other', path)


def test_identity_holds_the_hash_of_the_weights(tmp_path: Path) -> None:
    file = tmp_path / 'weights.safetensors'
    file.write_bytes(b'weights')
    there = Profile(segmentor=StageConfig('compact', str(file)))
    digest = hashlib.sha256(b'weights').hexdigest()
    assert model_identity(there) == f'compact {digest[:12]}'
    gone = Profile(segmentor=StageConfig('compact', str(tmp_path / 'gone.safetensors')))
    assert model_identity(gone) == 'compact'
