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

"""The named choices of windows."""

from __future__ import annotations

import pytest

from ood_perception.models import create_model
from ood_perception.models.uem import STRIDE, WINDOW, WINDOWS

SMALL = {'embed_dim': 24, 'num_heads': 2, 'channels': 8, 'mlp_hidden': 8, 'projector_hidden': (8,)}


@pytest.mark.parametrize('windows', list(WINDOWS))
def test_named_windows(windows: str) -> None:
    model = create_model('uem_dd', windows=windows, **SMALL)
    assert model.mode == ('single' if windows == 'single' else 'sliding')
    if windows == 'full':
        assert model.stride == STRIDE == (140, 140)
    if windows == 'coarse':
        assert model.stride == (WINDOW[0] // 2, WINDOW[1] // 2)


def test_unknown_windows_are_named() -> None:
    with pytest.raises(ValueError, match='some'):
        create_model('uem_dd', windows='some', **SMALL)
