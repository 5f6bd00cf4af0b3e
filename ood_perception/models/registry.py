# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The registry of models: a name, a function that builds it. One entry adds one.

Networks are imported when they are built, so that importing the registry stays light.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import nn


def _compact(**options: Any) -> nn.Module:
    from ood_perception.models.compact import build_compact

    return build_compact(**options)


def _internimage(variant: str, head: str, **options: Any) -> nn.Module:
    from ood_perception.models.encoder_decoder import build_internimage

    return build_internimage(variant, head, **options)


def _dinov2(variant: str, registers: bool, **options: Any) -> nn.Module:
    from ood_perception.models.dinov2 import build_dinov2

    return build_dinov2(variant, registers, **options)


def _dinov3(variant: str, **options: Any) -> nn.Module:
    from ood_perception.models.dinov3 import build_dinov3

    return build_dinov3(variant, **options)


def _uem(form: str, **options: Any) -> nn.Module:
    from ood_perception.models.uem import build_uem

    return build_uem(form, **options)


def _s2m_prompt_rcnn(**options: Any) -> nn.Module:
    from ood_perception.models.faster_rcnn import PromptRCNN

    return PromptRCNN(**options)


Factory = Callable[..., nn.Module]

SEGMENTORS: dict[str, Factory] = {
    'compact': _compact,
    **{
        f'internimage_{variant}_upernet': partial(_internimage, variant, 'upernet')
        for variant in ('t', 's', 'b', 'l', 'xl', 'h', 'g')
    },
    **{
        f'internimage_{variant}_segformer': partial(_internimage, variant, 'segformer')
        for variant in ('l', 'xl')
    },
    **{
        f'dinov2_vit{variant}14{suffix}': partial(_dinov2, variant, bool(suffix))
        for variant in ('s', 'b', 'l', 'g')
        for suffix in ('', '_reg')
    },
    **{f'dinov3_vit{variant}16': partial(_dinov3, variant) for variant in ('s', 'b', 'l')},
    **{f'uem_{form}': partial(_uem, form) for form in ('dd', 'gd', 'gg')},
}
"""Name -> factory; what it builds has `.spec` and maps normalised images to SegmentorOutput."""

MODELS: dict[str, Factory] = {**SEGMENTORS, 's2m_prompt_rcnn': _s2m_prompt_rcnn}
"""Every model that :func:`create_model` knows: segmentors, and the detector of prompts."""


def create_model(name: str, **overrides: Any) -> nn.Module:
    """
    Build a model with random weights, in evaluation mode.

    Under `torch.device('meta')` no memory is taken, which is enough to count parameters.

    Args:
        name: key of `MODELS`.
        **overrides: arguments of the factory that differ from the published ones.

    Raises:
        ValueError: unknown name, unknown argument, or arguments that do not fit together.
    """
    if name not in MODELS:
        close = difflib.get_close_matches(name, MODELS, n=1)
        hint = f'did you mean {close[0]!r}?' if close else f'there are: {", ".join(MODELS)}'
        raise ValueError(f'no model named {name!r}; {hint}')
    try:
        return MODELS[name](**overrides).eval()
    except TypeError as error:
        if 'argument' not in str(error):
            raise
        raise ValueError(f'{name}: {error}') from error
