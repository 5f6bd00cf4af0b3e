# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.cluster import KMeans

from ood_perception.clustering import StreamingKMeans
from ood_perception.clustering.kmeans import clean, lloyd, plus_plus, relocate, sums


def blobs(seed: int, n: int = 600, k: int = 8, d: int = 12, spread: float = 0.4) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    centers = 3 * torch.randn(k, d, generator=g)
    which = torch.randint(0, k, (n,), generator=g)
    return centers[which] + spread * torch.randn(n, d, generator=g)


def inertia(tokens: torch.Tensor, centers: torch.Tensor) -> float:
    return float(torch.cdist(tokens.double(), centers.double()).min(1).values.square().sum())


@pytest.mark.parametrize('k', [4, 16, 31])
def test_start_is_as_good_as_scikit_learn(k: int) -> None:
    tokens = blobs(0, k=20)
    kmeans = StreamingKMeans(k)
    kmeans.step(tokens[None])
    assert kmeans.centers is not None
    oracle = KMeans(k, n_init=3, random_state=0).fit(tokens.numpy()).inertia_
    assert inertia(tokens, kmeans.centers[0]) <= 1.1 * oracle


def test_drifting_stream_stays_near_the_converged_inertia() -> None:
    kmeans = StreamingKMeans(8)
    base, ratios = blobs(1), []
    for frame in range(12):
        g = torch.Generator().manual_seed(frame)
        tokens = base + 0.05 * frame + 0.1 * torch.randn(base.shape, generator=g)
        kmeans.step(tokens[None])
        assert kmeans.centers is not None
        oracle = KMeans(8, n_init=4, random_state=0).fit(tokens.numpy()).inertia_
        ratios.append(inertia(tokens, kmeans.centers[0]) / oracle)
    assert np.median(ratios) <= 1.01
    assert kmeans.age('0') == 12


def test_one_lloyd_step_equals_scikit_learn() -> None:
    tokens = blobs(2)
    start = plus_plus(
        tokens[None], torch.ones(1, len(tokens)), 8, torch.Generator().manual_seed(0)
    )
    oracle = KMeans(8, init=start[0].numpy(), n_init=1, max_iter=1, tol=0).fit(tokens.numpy())
    _, centers, _, _ = lloyd(clean(tokens[None]), start, torch.zeros(1, 8), 1)
    np.testing.assert_allclose(centers[0].numpy(), oracle.cluster_centers_, atol=1e-4)


def four_groups() -> tuple[torch.Tensor, torch.Tensor]:
    """Tokens of four groups, and centers of which two share a group and one serves two."""
    g = torch.Generator().manual_seed(0)
    groups = torch.tensor([[0.0, 0], [10, 0], [0, 10], [13, 10]])
    tokens = groups.repeat_interleave(50, 0) + 0.5 * torch.randn(200, 2, generator=g)
    return tokens[None], torch.tensor([[[-0.3, 0.0], [0.3, 0], [10, 0], [6.5, 10]]])


def test_relocation_leaves_a_local_optimum_that_lloyd_steps_cannot() -> None:
    tokens, centers = four_groups()
    data, nothing = clean(tokens), torch.zeros(1, 4)
    best = KMeans(4, n_init=5, random_state=0).fit(tokens[0].numpy()).inertia_
    ids, centers, _, distances = lloyd(data, centers, nothing, 20)
    assert float(distances.sum()) > 5 * best
    moved, pays = relocate(data, centers, ids, distances)
    assert pays.tolist() == [True]
    # one center went to the other side; the one that served nobody else's group stays
    assert torch.allclose(moved[0, 2], centers[0, 2], atol=1e-4)
    ids, centers, _, distances = lloyd(data, moved, nothing, 3)
    assert float(distances.sum()) == pytest.approx(best, rel=1e-4)
    # from the best there is nothing to gain: every center rests
    rest, pays = relocate(data, centers, ids, distances)
    assert pays.tolist() == [False]
    assert torch.equal(rest, centers)


def test_a_poor_start_is_left_within_a_few_frames() -> None:
    tokens, centers = four_groups()
    kmeans = StreamingKMeans(4, cut_ratio=0)
    kmeans.step(tokens)
    kmeans._states['0'].centers = centers[0]
    for _ in range(12):
        kmeans.step(tokens)
    assert kmeans.age('0') == 13
    best = KMeans(4, n_init=5, random_state=0).fit(tokens[0].numpy()).inertia_
    assert inertia(tokens[0], kmeans.centers[0]) == pytest.approx(best, rel=1e-3)


@pytest.mark.parametrize('clusters', [2, 3, 7])
def test_relocation_of_strange_tokens_gives_no_nan(clusters: int) -> None:
    for tokens in (torch.zeros(2, 5, 3), torch.full((2, 5, 3), torch.nan), torch.randn(2, 2, 3)):
        data = clean(tokens)
        start, nothing = torch.randn(2, clusters, 3), torch.zeros(2, clusters)
        ids, centers, _, distances = lloyd(data, start, nothing, 1)
        moved, _ = relocate(data, centers, ids, distances)
        assert torch.isfinite(moved).all()


def test_sums_of_strided_tokens_are_those_of_contiguous_ones() -> None:
    tokens = torch.randn(2, 5, 40).transpose(1, 2)
    values, weights, _ = clean(tokens)
    assert not values.is_contiguous()
    ids = torch.randint(0, 6, (2, 40))
    for got, want in zip(
        sums(values, weights, ids, 6), sums(values.contiguous(), weights, ids, 6), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_static_scene_keeps_its_ids() -> None:
    kmeans = StreamingKMeans(16)
    base = blobs(3, n=2000, k=16)
    before = kmeans.step(base[None])
    for frame in range(5):
        g = torch.Generator().manual_seed(frame)
        ids = kmeans.step((base + 0.05 * torch.randn(base.shape, generator=g))[None])
        assert (ids == before).float().mean() >= 0.95
        before = ids


def test_scene_cut_starts_afresh() -> None:
    kmeans = StreamingKMeans(8)
    for _ in range(4):
        kmeans.step(blobs(4)[None])
    other = blobs(5) * 2 + 30
    kmeans.step(other[None])
    assert kmeans.age('0') <= 1
    assert kmeans.centers is not None
    oracle = KMeans(8, n_init=4, random_state=0).fit(other.numpy()).inertia_
    assert inertia(other, kmeans.centers[0]) <= 1.15 * oracle


def test_dead_clusters_are_revived() -> None:
    kmeans = StreamingKMeans(6, cut_ratio=0)
    kmeans.step(blobs(6, k=6)[None])
    moved = blobs(7, k=6) + 5
    for _ in range(6):
        ids = kmeans.step(moved[None])
    assert len(ids.unique()) == 6


def test_rows_of_a_batch_are_independent() -> None:
    frames = [torch.stack([blobs(s), blobs(s + 50)]) for s in (8, 9)]
    both = StreamingKMeans(8)
    alone = [StreamingKMeans(8) for _ in range(2)]
    for frame in frames:
        ids = both.step(frame, ['front', 'rear'])
        for i, (name, one) in enumerate(zip(('front', 'rear'), alone, strict=True)):
            got = one.step(frame[i : i + 1], [name])
            assert (got[0] == ids[i]).float().mean() >= 0.99


def test_cameras_come_and_go() -> None:
    kmeans = StreamingKMeans(4, max_streams=3)
    a, b = blobs(10), blobs(11)
    first = kmeans.step(torch.stack([a, b]), ['a', 'b'])
    kmeans.step(b[None], ['b'])
    again = kmeans.step(torch.stack([b, a]), ['b', 'a'])
    assert (again[1] == first[0]).float().mean() >= 0.99
    assert (kmeans.age('a'), kmeans.age('b')) == (2, 3)
    for i in range(10):
        kmeans.step(a[None], [f'c{i}'])
    assert len(kmeans._states) == 3


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16, torch.float64])
def test_any_dtype_and_large_values(dtype: torch.dtype) -> None:
    kmeans = StreamingKMeans(8)
    tokens = (blobs(12) * 50).to(dtype)
    kmeans.step(tokens[None])
    assert kmeans.centers is not None
    assert kmeans.centers.dtype == torch.float32
    assert torch.isfinite(kmeans.centers).all()


@pytest.mark.parametrize(
    'tokens',
    [
        torch.zeros(1, 40, 5),
        torch.ones(1, 3, 5),
        torch.full((1, 40, 5), float('nan')),
        torch.cat([torch.full((1, 20, 5), float('inf')), torch.randn(1, 20, 5)], 1),
        torch.randn(1, 1, 5),
    ],
    ids=['equal', 'fewer than K', 'nan', 'inf', 'one token'],
)
def test_strange_tokens_never_give_nan(tokens: torch.Tensor) -> None:
    kmeans = StreamingKMeans(8)
    for _ in range(3):
        ids = kmeans.step(tokens)
    assert kmeans.centers is not None
    assert torch.isfinite(kmeans.centers).all()
    assert ids.shape == tokens.shape[:2]
    assert ids.dtype == torch.int64
    assert ids.min() >= 0
    assert ids.max() < 8
    good = blobs(13, d=5)[None]
    kmeans.step(good)
    assert torch.isfinite(kmeans.centers).all()


def test_memory_does_not_grow() -> None:
    kmeans = StreamingKMeans(2, iterations=1)
    tokens = torch.randn(1, 4, 2)
    sizes = set()
    for _ in range(500):
        kmeans.step(tokens)
        state = kmeans._states['0']
        sizes.add((len(kmeans._states), state.centers.numel(), state.counts.numel()))
    assert len(sizes) == 1
    assert float(kmeans._states['0'].counts.sum()) <= 4 / (1 - kmeans.decay) + 1e-3


@pytest.mark.parametrize(
    ('options', 'message'),
    [
        ({'n_clusters': 0}, 'n_clusters: expected 1 or more, got 0'),
        ({'n_clusters': 2, 'iterations': 0}, 'iterations'),
        ({'n_clusters': 2, 'decay': 1.0}, 'decay'),
    ],
)
def test_bad_options(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        StreamingKMeans(**options)


@pytest.mark.parametrize('shape', [(3, 4), (0, 3, 4), (1, 0, 4)])
def test_bad_tokens(shape: tuple) -> None:
    with pytest.raises(ValueError, match=r'expected \(B, N, D\)'):
        StreamingKMeans(2).step(torch.zeros(shape))
