# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

import pytest
import torch
from official_weights import assert_close, golden
from torch.distributions import Independent, Normal

from ood_perception.models.heads import GMMSegHead, LinearHead, build_head

CASE = golden('gmm_head_small.pt')


def log_prob(head, features):
    scaled, peak = head.log_prob_parts(features)
    return scaled + peak


def test_gmm_head_equals_the_official_one():
    head = GMMSegHead(16, 4, 3).eval()
    assert head.load_state_dict(CASE['params'], strict=True)
    with torch.no_grad():
        assert_close(head(CASE['x']), CASE['logits'], 1e-5)
        assert_close(log_prob(head, CASE['x']), CASE['log_prob'], 1e-5)


def test_log_prob_equals_torch_distributions():
    torch.manual_seed(0)
    head = GMMSegHead(32, 3, 5)
    torch.nn.init.uniform_(head.diagonal, 0.1, 2)
    torch.nn.init.normal_(head.feat_norm.weight)
    features = torch.randn(2, 32, 4, 3)
    x = head.normalise(features).double()
    means = torch.nn.functional.normalize(head.means.double(), dim=-1)
    oracle = Independent(Normal(means, head.diagonal.double()), 1)
    expected = oracle.log_prob(x[..., None, None, :])
    assert torch.allclose(x.norm(dim=-1), torch.ones(()).double(), atol=1e-6)
    assert_close(log_prob(head, features).double(), expected, 2e-4)


def test_two_classes_do_not_lose_digits():
    """The norm over two classes multiplies differences by up to 158."""
    torch.manual_seed(0)
    head = GMMSegHead(256, 2, 5).eval()
    torch.nn.init.normal_(head.means)
    torch.nn.init.uniform_(head.diagonal, 0.5, 1.5)
    features = torch.randn(1, 256, 12, 12)
    with torch.no_grad():
        exact = GMMSegHead(256, 2, 5).double()
        exact.load_state_dict(head.state_dict())
        means = torch.nn.functional.normalize(exact.means, dim=-1)
        x = exact.normalise(features.double())[..., None, None, :]
        expected = Independent(Normal(means, exact.diagonal), 1).log_prob(x)
        assert_close(head(features).double(), exact.classify(expected), 1e-3)


def test_training_state_is_not_part_of_the_head():
    assert set(GMMSegHead(8, 2, 3).state_dict()) == {
        'means',
        'diagonal',
        'feat_norm.weight',
        'feat_norm.bias',
        'mask_norm.weight',
        'mask_norm.bias',
    }


def test_linear_head_is_a_matrix_product_per_pixel():
    head = LinearHead(5, 3)
    x = torch.randn(2, 5, 4, 6)
    expected = torch.einsum('kd,bdhw->bkhw', head._head.weight, x) + head._head.bias.view(-1, 1, 1)
    assert_close(head(x), expected, 1e-6)


def test_unknown_kind_is_named():
    with pytest.raises(ValueError, match="'x'"):
        build_head('x', 4, 2, 3)
