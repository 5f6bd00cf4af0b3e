# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The registry of models: a name, a function that builds it. One entry adds one.

Networks are imported when they are built, so that importing the registry stays light.
"""

from __future__ import annotations

import difflib
import importlib
from collections.abc import Callable
from typing import Any

from torch import nn

Factory = Callable[..., nn.Module]


def _of(module: str, name: str, *arguments: Any, **fixed: Any) -> Factory:
    """Factory that imports `ood_perception.models.module` when it builds `name`."""

    def build(**options: Any) -> nn.Module:
        network = getattr(importlib.import_module(f'ood_perception.models.{module}'), name)
        built: nn.Module = network(*arguments, **{**fixed, **options})
        return built

    return build


SEGMENTORS: dict[str, Factory] = {
    'compact': _of('compact', 'Compact'),
    **{
        f'internimage_{variant}_{head}': _of('encoder_decoder', 'EncoderDecoder', variant, head)
        for head, variants in (
            ('upernet', ('t', 's', 'b', 'l', 'xl', 'h', 'g')),
            ('segformer', ('l', 'xl')),
        )
        for variant in variants
    },
    **{
        f'dinov2_vit{variant}14{suffix}': _of('dinov2', 'DINOv2', variant, registers=registers)
        for variant in 'sblg'
        for suffix, registers in (('', 0), ('_reg', 4))
    },
    **{f'dinov3_vit{variant}16': _of('dinov3', 'DINOv3', variant) for variant in 'sbl'},
    **{f'uem_{form}': _of('uem', 'UEM', form) for form in ('dd', 'gd', 'gg')},
}
"""Name -> factory; what it builds has `.spec` and maps normalised images to SegmentorOutput."""

MODELS: dict[str, Factory] = {**SEGMENTORS, 's2m_prompt_rcnn': _of('faster_rcnn', 'PromptRCNN')}
"""Every model that :func:`create_model` knows: segmentors, and the detector of prompts."""


def create_model(name: str, **overrides: Any) -> nn.Module:
    """
    Build an entry of `MODELS` with random weights, in evaluation mode.

    Under `torch.device('meta')` no memory is taken, which is enough to count parameters. Overrides
    are arguments that differ from the published ones. An unknown name, an unknown argument and
    arguments that do not fit together are a ValueError.
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
