# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import os
import subprocess
import sys

import pytest
import torch

from ood_perception.engines import ENGINES, candidates, create_engine
from ood_perception.engines.fallback import TOLERANCE, FastestEngine, difference
from ood_perception.engines.tensorrt import cache_key
from ood_perception.models.compact import build_compact
from ood_perception.models.output import SegmentorOutput

from small_models import SmallSegmentor

CPU = torch.device('cpu')


def images(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize('name', ['eager', 'onnxruntime', 'openvino'])
@pytest.mark.parametrize('ood', [True, False])
@torch.inference_mode()
def test_engine_equals_the_model(name: str, ood: bool) -> None:
    model = SmallSegmentor(ood).eval()
    engine = create_engine(name, model, CPU)
    assert engine.name == name
    for shape in [(1, 3, 32, 48), (3, 3, 32, 48), (2, 3, 37, 51)]:
        x = images(*shape)
        got, want = engine(x), model(x)
        assert (got.ood is None) == (not ood)
        torch.testing.assert_close(got.logits, want.logits, atol=1e-4, rtol=1e-4)
        assert len(got.features) == 2
        for a, b in zip(got.features, want.features, strict=True):
            torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
        if ood:
            torch.testing.assert_close(got.ood, want.ood, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_onnxruntime_keeps_a_bounded_number_of_sizes() -> None:
    from ood_perception.engines.onnx import MAX_SESSIONS, OnnxRuntimeEngine

    engine = OnnxRuntimeEngine(SmallSegmentor(), CPU, torch.float32, features=False)
    for i in range(MAX_SESSIONS + 2):
        output = engine(images(1, 3, 16 + 8 * i, 24))
        assert output.features == []
    assert len(engine._sessions) == MAX_SESSIONS
    assert len(engine._shapes) == MAX_SESSIONS


@torch.inference_mode()
def test_openvino_keeps_a_bounded_number_of_shapes_and_its_outputs() -> None:
    from ood_perception.engines.openvino import MAX_COMPILED, OpenVINOEngine

    engine = OpenVINOEngine(SmallSegmentor(), CPU, torch.float32, features=False)
    first = engine(images(1, 3, 16, 24)).logits
    kept = first.clone()
    for i in range(MAX_COMPILED + 2):
        engine(images(1 + i % 2, 3, 16 + 8 * (i // 2), 24))
    assert len(engine._requests) == MAX_COMPILED
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


@pytest.mark.parametrize(
    ('machine', 'installed', 'wanted'),
    [
        ('x86_64', {'openvino', 'onnxruntime'}, ['openvino', 'eager']),
        ('x86_64', {'onnxruntime'}, ['onnxruntime', 'eager']),
        ('aarch64', {'openvino', 'onnxruntime'}, ['openvino', 'onnxruntime', 'eager']),
        ('x86_64', set(), ['eager']),
    ],
)
def test_candidates_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, machine: str, installed: set[str], wanted: list[str]
) -> None:
    monkeypatch.setattr('platform.machine', lambda: machine)
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name in installed or None)
    assert candidates(CPU) == wanted


def test_openvino_does_not_call_home() -> None:
    code = (
        'import sys, torch; from ood_perception.engines.openvino import _core; _core();'
        'loaded = [n for n, m in sys.modules.items() if n.startswith("openvino_telemetry") and m];'
        'assert "openvino" in sys.modules and not loaded, loaded'
    )
    subprocess.run([sys.executable, '-c', code], check=True)


SIGNAL_AFTER_MANY_SHAPES = """
import os, signal
import torch
from ood_perception.engines.openvino import MAX_COMPILED, OpenVINOEngine
from small_models import SmallSegmentor
with torch.inference_mode():
    engine = OpenVINOEngine(SmallSegmentor(), torch.device('cpu'), torch.float32, False)
    for i in range(MAX_COMPILED + 3):
        engine(torch.zeros(1, 3, 16 + 8 * i, 24))
del engine
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGUSR1)
assert seen
"""


def test_signals_are_survived_after_openvino_has_forgotten_shapes() -> None:
    done = subprocess.run(
        [sys.executable, '-c', SIGNAL_AFTER_MANY_SHAPES],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0


@torch.inference_mode()
def test_int8_agrees_with_its_simulation_in_torch() -> None:
    torch.manual_seed(0)
    network = build_compact().eval()
    engine = create_engine('openvino_int8', network, CPU, features=False)
    x = images(1, 3, 64, 96)
    output = engine(x)
    assert engine.name == 'openvino_int8'
    assert difference(output, network.int8()(x)) < TOLERANCE
    assert difference(output, network(x)) > 0  # it is not the float network


def test_int8_needs_a_segmentor_that_has_it() -> None:
    notes: list[str] = []
    engine = create_engine('openvino_int8', SmallSegmentor(), CPU, note=notes.append)
    assert engine.name == 'openvino'
    assert 'SmallSegmentor has no int8 form' in notes[0]


@torch.inference_mode()
def test_bfloat16_stays_near_float32() -> None:
    network = SmallSegmentor().eval()
    engine = create_engine('openvino_bf16', network, CPU, features=False)
    x = images(1, 3, 64, 96)
    assert difference(engine(x), network(x)) < TOLERANCE
    assert engine.name == 'openvino_bf16'
    assert engine(x).logits.dtype == torch.float32


@pytest.mark.parametrize('amx', [True, False])
@pytest.mark.parametrize('vnni', [True, False])
def test_auto_rounds_as_the_cpu_does_it_fast(
    monkeypatch: pytest.MonkeyPatch, vnni: bool, amx: bool
) -> None:
    monkeypatch.setattr('ood_perception.engines.has_bfloat16_tiles', lambda: amx)
    monkeypatch.setattr('ood_perception.engines.has_int8_instructions', lambda: vnni)
    monkeypatch.setattr('platform.machine', lambda: 'x86_64')
    wanted = 'openvino_bf16' if amx else 'openvino_int8' if vnni else 'openvino'
    assert candidates(CPU, rounded=True) == [wanted, 'eager']
    assert candidates(CPU) == ['openvino', 'eager']


@pytest.mark.parametrize('unit', ['has_bfloat16_tiles', 'has_int8_instructions'])
@torch.inference_mode()
def test_features_are_never_rounded(monkeypatch: pytest.MonkeyPatch, unit: str) -> None:
    monkeypatch.setattr(f'ood_perception.engines.{unit}', lambda: True)
    engine = create_engine('auto', build_compact().eval(), CPU, features=True)
    engine(images(1, 3, 32, 32))
    assert 'int8' not in engine.why
    assert 'bf16' not in engine.why


@torch.inference_mode()
def test_an_int8_engine_that_rounds_otherwise_is_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Wrong(ENGINES['openvino_int8']):  # type: ignore[misc, valid-type]
        def __call__(self, x: torch.Tensor) -> SegmentorOutput:
            output = super().__call__(x)
            output.ood = output.ood * 2
            return output

    monkeypatch.setattr('ood_perception.engines.has_bfloat16_tiles', lambda: False)
    monkeypatch.setattr('ood_perception.engines.has_int8_instructions', lambda: True)
    monkeypatch.setitem(ENGINES, 'openvino_int8', Wrong)
    notes: list[str] = []
    engine = create_engine('auto', build_compact().eval(), CPU, features=False, note=notes.append)
    engine(images(1, 3, 32, 32))
    assert engine.name == 'eager'
    assert any('differs' in note for note in notes)


def test_openvino_needs_the_cpu() -> None:
    engine = create_engine('openvino', SmallSegmentor(), torch.device('meta'))
    assert engine.name != 'openvino'


@torch.inference_mode()
def test_auto_takes_the_fastest_and_says_why() -> None:
    notes: list[str] = []
    engine = create_engine('auto', SmallSegmentor(), CPU, note=notes.append)
    x = images(1, 3, 64, 64)
    torch.testing.assert_close(
        engine(x).logits, SmallSegmentor().eval()(x).logits, atol=1e-4, rtol=0
    )
    assert isinstance(engine, FastestEngine)
    assert engine.name in candidates(CPU)
    assert 'eager' in engine.why
    assert 'ms' in engine.why
    assert notes == []


@torch.inference_mode()
def test_an_engine_that_disagrees_with_eager_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(ENGINES['eager']):  # type: ignore[misc, valid-type]
        def __call__(self, x: torch.Tensor) -> SegmentorOutput:
            output = super().__call__(x)
            output.logits = output.logits * 2
            return output

    for name in ('onnxruntime', 'openvino'):
        monkeypatch.setitem(ENGINES, name, Wrong)
    notes: list[str] = []
    engine = create_engine('auto', SmallSegmentor(), CPU, note=notes.append)
    engine(images(1, 3, 32, 32))
    assert engine.name == 'eager'
    assert any('differs' in note for note in notes)


@torch.inference_mode()
def test_missing_tensorrt_falls_back_with_one_line() -> None:
    notes: list[str] = []
    engine = create_engine('tensorrt', SmallSegmentor(), CPU, note=notes.append)
    assert engine.name == 'compiled'
    assert len(notes) == 1
    assert 'tensorrt' in notes[0]


@torch.inference_mode()
def test_an_engine_that_fails_while_running_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    class Dies(ENGINES['eager']):  # type: ignore[misc, valid-type]
        calls = 0

        def __call__(self, x: torch.Tensor) -> SegmentorOutput:
            Dies.calls += 1
            if Dies.calls > 1:
                raise RuntimeError('device lost')
            return super().__call__(x)

    monkeypatch.setitem(ENGINES, 'compiled', Dies)
    notes: list[str] = []
    engine = create_engine('compiled', SmallSegmentor(), CPU, note=notes.append)
    x = images(1, 3, 32, 32)
    want = SmallSegmentor().eval()(x).logits
    for _ in range(3):
        torch.testing.assert_close(engine(x).logits, want)
    assert engine.name == 'eager'
    assert notes == ['engine compiled failed (device lost); using eager instead']


def test_the_last_engine_raises() -> None:
    engine = create_engine('eager', SmallSegmentor(), CPU)
    with pytest.raises(RuntimeError):
        engine(images(1, 4, 32, 32))


def test_unknown_engine() -> None:
    with pytest.raises(ValueError, match=r"auto or one of eager.*got 'fast'"):
        create_engine('fast', SmallSegmentor(), CPU)


def test_engine_cache_key_depends_on_all_that_matters() -> None:
    model, other = SmallSegmentor(), SmallSegmentor()
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    keys = {
        cache_key(model, (1, 3, 8, 8), 'half', 'a'),
        cache_key(other, (1, 3, 8, 8), 'half', 'a'),
        cache_key(model, (2, 3, 8, 8), 'half', 'a'),
        cache_key(model, (1, 3, 8, 8), 'single', 'a'),
        cache_key(model, (1, 3, 8, 8), 'half', 'b'),
    }
    assert len(keys) == 5
    assert cache_key(SmallSegmentor(), (1, 3, 8, 8), 'half', 'a') in keys


def test_difference_sees_nan_and_missing_outputs() -> None:
    logits = torch.linspace(0, 1, 8).view(1, 2, 2, 2)
    reference = SegmentorOutput(logits=logits)
    assert difference(SegmentorOutput(logits=logits + 0.1), reference) == pytest.approx(0.1)
    assert difference(SegmentorOutput(), reference) == float('inf')
    assert difference(SegmentorOutput(logits=logits * float('nan')), reference) == float('inf')
