# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.neighbors import NearestNeighbors

from ood_perception.models.output import SegmentorOutput
from ood_perception.scores.novelty import NoveltyScore, nearest, thin


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
    for k in (1, 5):
        oracle = NearestNeighbors(n_neighbors=k).fit(bank.numpy()).kneighbors(tokens.numpy())[0]
        np.testing.assert_allclose(nearest(tokens, bank, k).numpy(), oracle.mean(1), atol=1e-4)


def test_memory_is_bounded_and_covers_what_was_seen() -> None:
    memory = NoveltyScore(capacity=40, stages=(0,))
    memory.start()
    g = torch.Generator().manual_seed(0)
    frames = [SegmentorOutput([torch.randn(1, 6, 8, 8, generator=g)]) for _ in range(30)]
    for frame in frames:
        memory.learn(frame)
        assert memory.size <= 40
    assert memory.bank is not None
    spacing = torch.pdist(memory.bank)
    tokens = torch.cat([f.features[0] for f in frames]).movedim(1, -1).reshape(-1, 6)
    tokens = torch.nn.functional.normalize(tokens, dim=1)
    reach = nearest(tokens, memory.bank, 1)
    assert float(spacing.min()) > 0
    # the doubling algorithm: everything is within a few radii of what is kept
    assert float(reach.max()) <= 4 * memory.radius


def test_thin_keeps_the_oldest_and_the_spacing() -> None:
    bank = torch.tensor([[0.0], [0.1], [1.0], [1.05], [3.0]])
    assert thin(bank, 0.5).flatten().tolist() == [0.0, 1.0, 3.0]


def test_saved_memory_scores_the_same(tmp_path: Path) -> None:
    memory = NoveltyScore(stages=(0,))
    memory.start()
    memory(normal(0), (8, 10))
    memory.stop()
    path = tmp_path / 'memory.safetensors'
    memory.save(str(path))
    other = NoveltyScore(stages=(0,), weights=str(path))
    assert torch.equal(other(normal(1), (8, 10)), memory(normal(1), (8, 10)))


def test_bad_memories_are_refused(tmp_path: Path) -> None:
    memory = NoveltyScore(stages=(0,))
    with pytest.raises(ValueError, match='nothing was learnt'):
        memory.save(str(tmp_path / 'x'))
    memory.learn(normal(0))
    path = tmp_path / 'memory.safetensors'
    memory.save(str(path))
    with pytest.raises(ValueError, match=r'stages \[0\], expected \[-1\]'):
        NoveltyScore(stages=(-1,)).load(str(path))
    with pytest.raises(ValueError, match='another model'):
        memory(SegmentorOutput([torch.randn(1, 9, 4, 4)]), (4, 4))
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
