# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Engines: which are installed, which run, and which one a profile gets."""

from __future__ import annotations

import importlib.util
import platform
from collections.abc import Iterator
from typing import Any

from ood_perception.diagnosis.software import ERROR, OK, WARN, Finding, version

NEEDS = {
    'openvino': ('openvino',),
    'onnxruntime': ('onnxruntime', 'onnx', 'onnxscript'),
    'tensorrt': ('torch_tensorrt',),
}
"""Engine -> modules that it needs."""


def check_installed() -> Iterator[Finding]:
    """Whether the fast engine of this machine has what it needs, without trying it."""
    import torch

    wanted = 'tensorrt' if torch.cuda.is_available() else 'openvino'
    if wanted == 'openvino' and platform.machine().lower() not in ('x86_64', 'amd64'):
        wanted = 'onnxruntime'
    if missing := _missing(wanted):
        text = f'engine {wanted} lacks {", ".join(missing)}; slower ones run instead'
        yield Finding(wanted, WARN, text, _install(missing))


def check_engines() -> Iterator[Finding]:
    """Run a small network on each engine that this machine may use."""
    import torch

    from ood_perception.engines import ENGINES

    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    for name in ['tensorrt'] if device.type == 'cuda' else ['openvino', 'onnxruntime']:
        if missing := _missing(name):
            text = f'not installed ({", ".join(missing)})'
            # One fast engine is enough; whether there is one, check_installed has said.
            yield Finding(f'engine {name}', OK, text, _install(missing))
            continue
        network, images = small_network(), torch.rand(1, 3, 32, 32, device=device)
        try:
            with torch.inference_mode():
                output = ENGINES[name](network.to(device), device, torch.float32, False)(images)
                expected = network(images)
            if output.logits is None or expected.logits is None:
                raise ValueError('it returns no logits')
            gap = float((output.logits.to(expected.logits) - expected.logits).abs().max())
            if not gap < 0.05:
                raise ValueError(f'its result differs by {gap:.2g} from that of torch')
        except Exception as error:
            text = ' '.join(str(error).split())[:300] or type(error).__name__
            yield Finding(f'engine {name}', ERROR, f'does not run: {text}', _install(NEEDS[name]))
        else:
            packages = ', '.join(f'{m} {version(m.replace("_", "-")) or ""}' for m in NEEDS[name])
            yield Finding(f'engine {name}', OK, f'runs ({packages})')


def check_choice(profile: str, size: tuple[int, int]) -> Iterator[Finding]:
    """Build the profile with engine 'auto' and say which engine runs it, and why."""
    from ood_perception.pipeline import Pipeline
    from ood_perception.profile import ProfileError

    try:
        pipeline = Pipeline.from_profile(profile)
    except ProfileError:
        return  # check_profile has told it
    pipeline.warm_up([size])
    name, notes = pipeline.engine.name, list(pipeline.notes)
    why = pipeline.engine.why or f'engine {name}'
    pipeline.close()
    text = f'{name} on {pipeline.device} for images of {size[1]}x{size[0]}'
    if name == 'eager' and pipeline.device.type == 'cpu':
        reason = '; '.join(notes) or why
        remedy = 'pip install openvino' if _missing('openvino') else 'see the engines above'
        yield Finding('engine in use', WARN, f'{text}, the slowest: {reason}', remedy)
    else:
        yield Finding('engine in use', OK, f'{text}: {why}')


def small_network() -> Any:
    """A network of one convolution with a segmentor's outputs."""
    import torch
    from torch import Tensor, nn

    from ood_perception.models.output import InputSpec, SegmentorOutput

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spec = InputSpec()
            self.layer = nn.Conv2d(3, 4, 3, padding=1)

        def forward(self, images: Tensor) -> SegmentorOutput:
            found = torch.relu(self.layer(images))
            return SegmentorOutput(features=[found], logits=found)

    return Small().eval()


def _missing(engine: str) -> list[str]:
    return [name for name in NEEDS[engine] if importlib.util.find_spec(name) is None]


def _install(modules: Any) -> str:
    return f'pip install {" ".join(m.replace("_", "-") for m in modules)}'
