# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from ood_perception.engines import ENGINES, candidates, create_engine, onnx, openvino
from ood_perception.engines.choices import cache_folder, keep, network_key
from ood_perception.engines.measure import (
    EXACT_TOLERANCE,
    ROUNDED_TOLERANCE,
    largest_difference,
    mean_difference,
    probe_frame,
    probe_frames,
    prober,
)
from ood_perception.engines.openvino import OpenVINOEngine, int8_form
from ood_perception.models.compact import Compact
from ood_perception.models.output import InputSpec, SegmentorOutput

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
    shapes = [(1, 3, 32, 48), (3, 3, 32, 48), (2, 3, 37, 51)]
    for shape in shapes if ood else shapes[-1:]:  # how sizes come and go depends on no output
        x = images(*shape)
        for layout in (torch.contiguous_format, torch.channels_last):
            got, want = engine(x.contiguous(memory_format=layout)), model(x)
            assert engine.name == name
            assert (got.ood is None) == (not ood)
            torch.testing.assert_close(got.logits, want.logits, atol=1e-4, rtol=1e-4)
            assert len(got.features) == 2
            for a, b in zip(got.features, want.features, strict=True):
                torch.testing.assert_close(a, b, atol=1e-4, rtol=1e-4)
            if ood:
                torch.testing.assert_close(got.ood, want.ood, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize('name', ['eager', 'openvino'])
@torch.inference_mode()
def test_features_are_left_out_where_nobody_reads_them(name: str) -> None:
    engine = create_engine(name, SmallSegmentor(), CPU, features=False)
    assert engine(images(1, 3, 16, 24)).features == []
    assert engine.name == name


class OneLayer(nn.Module):
    """The quickest to export, which takes a second for each layer of a network."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 2, 1)

    def forward(self, x: torch.Tensor) -> SegmentorOutput:
        return SegmentorOutput([x + 1], self.layer(x))


@torch.inference_mode()
def test_onnxruntime_keeps_a_bounded_number_of_sizes_and_leaves_features_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(onnx, 'MAX_SESSIONS', 2)
    model = OneLayer().eval()
    engine = onnx.OnnxRuntimeEngine(model, CPU, torch.float32, features=False)
    for height in (16, 24, 32):
        x = images(1, 3, height, 24)
        output = engine(x)
        assert output.features == []
        torch.testing.assert_close(output.logits, model(x).logits, atol=1e-4, rtol=1e-4)
    assert engine.shapes() == [(0, 3, 24, 24), (0, 3, 32, 24)]


# ---- OpenVINO ------------------------------------------------------------------------------


@torch.inference_mode()
def test_openvino_keeps_a_bounded_number_of_sizes_and_its_outputs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(openvino, 'MAX_COMPILED', 2)
    engine = OpenVINOEngine(SmallSegmentor(), CPU, torch.float32, features=False)
    first = engine(images(1, 3, 16, 24)).logits
    assert first is not None
    kept = first.clone()
    for height in (16, 24, 32):
        for count in (1, 2):
            engine(images(count, 3, height, 24))
    assert engine.shapes() == [(0, 3, 24, 24), (0, 3, 32, 24)]
    torch.testing.assert_close(first, kept, rtol=0, atol=0)


@torch.inference_mode()
def test_the_second_start_converts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    x = images(1, 3, 32, 48)
    want = OpenVINOEngine(SmallSegmentor(), CPU, torch.float32)(x)

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError('converted again')

    monkeypatch.setattr('openvino.convert_model', refuse)
    got = OpenVINOEngine(SmallSegmentor(), CPU, torch.float32)(x)
    assert largest_difference(got, want) == 0
    with pytest.raises(AssertionError, match='converted again'):
        OpenVINOEngine(SmallSegmentor(), CPU, torch.float32, False)(x)


@pytest.mark.parametrize('damage', ['empty', 'cut', 'one byte', 'text'])
@torch.inference_mode()
def test_a_damaged_network_is_converted_again(cache: Path, damage: str, caplog) -> None:
    x = images(1, 3, 16, 24)
    want = OpenVINOEngine(SmallSegmentor(), CPU, torch.float32)(x)
    (path,) = cache.glob('network-*')
    data = path.read_bytes()
    middle = len(data) // 2
    path.write_bytes(
        {
            'empty': b'',
            'cut': data[:middle],
            'one byte': data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :],
            'text': b'not a network',
        }[damage]
    )
    got = OpenVINOEngine(SmallSegmentor(), CPU, torch.float32)(x)
    assert largest_difference(got, want) == 0
    assert sum('converting the network again' in r.message for r in caplog.records) == 1
    assert path.read_bytes() == data or path.stat().st_size > 1000


@torch.inference_mode()
def test_other_weights_do_not_take_the_kept_network() -> None:
    model, other = SmallSegmentor(), SmallSegmentor()
    with torch.no_grad():
        other.head.bias[0] += 1
    x = images(1, 3, 16, 24)
    OpenVINOEngine(model, CPU, torch.float32)(x)
    got = OpenVINOEngine(other, CPU, torch.float32)(x)
    torch.testing.assert_close(got.logits, other.eval()(x).logits, atol=1e-4, rtol=1e-4)


@torch.inference_mode()
def test_without_a_place_to_write_openvino_still_runs(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('OOD_ENGINE_CACHE', str(tmp_path / 'file'))
    engine = create_engine('openvino', SmallSegmentor(), CPU)
    engine(images(1, 3, 16, 24))
    engine(images(1, 3, 24, 24))
    assert engine.name == 'openvino'
    assert sum('cannot be written' in r.message for r in caplog.records) == 1


def test_where_things_are_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert str(cache_folder()) == os.environ['OOD_ENGINE_CACHE']
    monkeypatch.delenv('OOD_ENGINE_CACHE')
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path))
    assert cache_folder() == tmp_path / 'ood_perception' / 'engines'
    monkeypatch.delenv('XDG_CACHE_HOME')
    monkeypatch.setenv('HOME', str(tmp_path))
    assert cache_folder() == tmp_path / '.cache' / 'ood_perception' / 'engines'


def test_the_oldest_files_of_each_kind_go_and_others_stay(tmp_path: Path) -> None:
    for number in range(60):
        for name in ('network-{}.ov', 'choice-{}.json', 'tensorrt-{}.ep', 'mine-{}.txt'):
            path = tmp_path / name.format(number)
            path.touch()
            os.utime(path, (number, number))
    keep(tmp_path / 'network-new.ov', b'new')
    left = sorted(path.name for path in tmp_path.iterdir())
    numbers = [int(name[9:-3]) for name in left if name.startswith('tensorrt-')]
    assert sorted(numbers) == list(range(44, 60))
    assert 'network-new.ov' in left
    assert 'network-59.ov' in left
    assert 'network-3.ov' not in left
    assert sum(name.startswith(('network-', 'choice-')) for name in left) == 48
    assert sum(name.startswith('mine-') for name in left) == 60


AFTER_MANY_SHAPES = """
import os, signal, sys
import torch
from ood_perception.engines import openvino
from small_models import SmallSegmentor
openvino.MAX_COMPILED = 1
with torch.inference_mode():
    engine = openvino.OpenVINOEngine(
        SmallSegmentor(), torch.device('cpu'), torch.float32, False)
    for i in range(3):
        engine(torch.zeros(1, 3, 16 + 8 * i, 24))
del engine
loaded = [n for n, m in sys.modules.items() if n.startswith('openvino_telemetry') and m]
assert 'openvino' in sys.modules and not loaded, loaded
seen = []
signal.signal(signal.SIGUSR1, lambda number, frame: seen.append(number))
os.kill(os.getpid(), signal.SIGUSR1)
assert seen
"""


def test_openvino_does_not_call_home_and_signals_are_survived_after_it_forgot_shapes() -> None:
    done = subprocess.run(
        [sys.executable, '-c', AFTER_MANY_SHAPES],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        check=False,
    )
    assert done.returncode == 0


def test_openvino_needs_the_cpu() -> None:
    for name in ('openvino', 'openvino_int8', 'openvino_bf16', 'onnxruntime'):
        with pytest.raises(ValueError, match='meta'):
            ENGINES[name](Compact(pretrained=False), torch.device('meta'), torch.float32, False)


@torch.inference_mode()
def test_int8_agrees_with_its_simulation_in_torch() -> None:
    torch.manual_seed(0)
    network = Compact().eval()
    engine = create_engine('openvino_int8', network, CPU, features=False)
    x = prober(network.spec, CPU)((1, 3, 64, 96))
    output = engine(x)
    assert engine.name == 'openvino_int8'
    assert largest_difference(output, int8_form(network)(x)) < 0.05
    gap = mean_difference(output, network(x))
    assert 0 < gap < ROUNDED_TOLERANCE  # it is not the float network, and near it


def test_int8_needs_a_segmentor_that_has_it() -> None:
    engine = create_engine('openvino_int8', SmallSegmentor(), CPU)
    engine.prepare([(1, 3, 16, 24)])
    assert engine.name == 'openvino'
    (event,) = engine.faults()
    assert 'SmallSegmentor has no int8 form' in event.reason


@torch.inference_mode()
def test_bfloat16_stays_near_float32_or_says_that_the_cpu_has_none() -> None:
    network = SmallSegmentor().eval()
    engine = create_engine('openvino_bf16', network, CPU, features=False)
    x = images(1, 3, 64, 96)
    output = engine(x)
    assert largest_difference(output, network(x)) < 0.05
    assert output.logits is not None
    assert output.logits.dtype == torch.float32
    if engine.name != 'openvino_bf16':
        assert 'no instructions for bfloat16' in engine.faults()[0].reason


# ---- auto ----------------------------------------------------------------------------------

ONNX = {'onnx', 'onnxscript', 'onnxruntime'}


@pytest.mark.parametrize(
    ('installed', 'rounded', 'wanted'),
    [
        ({'openvino', *ONNX}, False, ['openvino', 'onnxruntime', 'eager']),
        (ONNX - {'onnxscript'}, False, ['eager']),
        (ONNX - {'onnx'}, False, ['eager']),
        ({'openvino'}, True, ['openvino_int8', 'openvino_bf16', 'openvino', 'eager']),
        (set(), True, ['eager']),
    ],
)
def test_candidates_on_a_cpu(
    monkeypatch: pytest.MonkeyPatch, installed: set[str], rounded: bool, wanted: list[str]
) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: name in installed or None)
    assert candidates(CPU, rounded) == wanted
    # Beside frames nothing is exported, where there is another way.
    assert candidates(CPU, rounded, live=True) == [
        name for name in wanted if name != 'onnxruntime' or 'openvino' not in installed
    ]


def test_candidates_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('importlib.util.find_spec', lambda name: None)
    assert candidates(torch.device('cuda:1')) == ['compiled', 'eager']


@torch.inference_mode()
def test_auto_takes_one_of_what_is_installed_and_says_why() -> None:
    """And a CPU does not know the precision of a GPU: what was measured holds for that, too."""
    notes: list[str] = []
    engine, other = (
        create_engine('auto', SmallSegmentor(), CPU, dtype, note=notes.append)
        for dtype in (torch.float32, torch.float16)
    )
    x = images(1, 3, 64, 64)
    output = engine(x)
    torch.testing.assert_close(output.logits, SmallSegmentor().eval()(x).logits, atol=1e-4, rtol=0)
    assert engine.name in candidates(CPU)
    for name in candidates(CPU):
        assert f'{name} ' in engine.why
    assert 'ms' in engine.why
    assert largest_difference(output, other(x)) == 0
    if len(candidates(CPU)) > 1:
        assert other.why.startswith('measured at an earlier start')
    assert notes == []


@torch.inference_mode()
def test_features_are_never_rounded() -> None:
    engine = create_engine('auto', Compact(pretrained=False).eval(), CPU, features=True)
    assert not {'openvino_int8', 'openvino_bf16'} & set(engine._order)


@torch.inference_mode()
def test_an_engine_that_disagrees_with_eager_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    class Wrong(ENGINES['eager']):  # type: ignore[misc, valid-type]
        def __call__(self, x: torch.Tensor) -> SegmentorOutput:
            output = super().__call__(x)
            output.logits = output.logits * 2
            return output

    class WrongFeatures(ENGINES['eager']):  # type: ignore[misc, valid-type]
        def __call__(self, x: torch.Tensor) -> SegmentorOutput:
            output = super().__call__(x)
            output.features[1] = output.features[1] * 2
            return output

    monkeypatch.setitem(ENGINES, 'onnxruntime', Wrong)
    monkeypatch.setitem(ENGINES, 'openvino', WrongFeatures)
    notes: list[str] = []
    engine = create_engine('auto', SmallSegmentor(), CPU, note=notes.append)
    engine(images(1, 3, 32, 32))
    assert engine.name == 'eager'
    assert sum('differ' in note for note in notes) == 2


# ---- the GPU's engines, as far as a CPU shows them -----------------------------------------


@torch.inference_mode()
def test_missing_tensorrt_is_told_with_its_remedy() -> None:
    if importlib.util.find_spec('torch_tensorrt'):
        pytest.skip('torch-tensorrt is installed')
    engine = create_engine('tensorrt', SmallSegmentor(), CPU)
    engine._makers['compiled'] = engine._makers['eager']  # it would compile for a minute
    engine.prepare([(1, 3, 16, 24)])
    assert engine.name == 'compiled'
    assert 'pip install' in engine.faults()[0].reason


@pytest.mark.slow
@torch.inference_mode()
def test_compiled_equals_the_model_at_every_shape() -> None:
    model = SmallSegmentor().eval()
    engine = ENGINES['compiled'](model, CPU, torch.float32, True)
    for i in range(10):  # more than torch.compile specialises on by itself
        x = images(1, 3, 16 + 8 * i, 24)
        assert largest_difference(engine(x), model(x)) < 1e-4
    assert len(engine.shapes() or []) == 10


def test_unknown_engine() -> None:
    with pytest.raises(ValueError, match=r"auto or one of eager.*got 'fast'"):
        create_engine('fast', SmallSegmentor(), CPU)


# ---- parts ---------------------------------------------------------------------------------


def test_the_key_of_a_network_depends_on_all_that_matters() -> None:
    model, other, moved = SmallSegmentor(), SmallSegmentor(), SmallSegmentor()
    with torch.no_grad():
        other.head.bias[0] += 1e-3
    moved.to(memory_format=torch.channels_last)
    assert network_key(model) != network_key(other)
    assert network_key(model) != network_key(SmallSegmentor(ood=False))
    assert network_key(model) == network_key(SmallSegmentor())
    assert network_key(model) == network_key(moved)  # how weights lie says nothing


def test_differences_see_nan_and_missing_outputs() -> None:
    logits = torch.linspace(0, 1, 8).view(1, 2, 2, 2)
    reference = SegmentorOutput(logits=logits)
    assert largest_difference(reference, reference) == 0
    assert largest_difference(SegmentorOutput(logits=logits + 0.1), reference) == pytest.approx(
        0.1
    )
    for measure in (largest_difference, mean_difference):
        assert measure(SegmentorOutput(), reference) == float('inf')
        assert measure(SegmentorOutput(logits=logits * float('nan')), reference) == float('inf')
        assert measure(SegmentorOutput(logits=logits[..., :1]), reference) == float('inf')
        assert measure(SegmentorOutput(), SegmentorOutput()) == 0
    assert EXACT_TOLERANCE < ROUNDED_TOLERANCE


def test_probe_frames_are_real_and_have_the_shape_asked_for() -> None:
    assert len(probe_frames()) == 3
    assert all(frame.shape == (360, 480, 3) for frame in probe_frames())
    assert probe_frame(17, 31).shape == (17, 31, 3)
    found = prober(InputSpec(), CPU)((5, 3, 40, 56))
    assert found.shape == (5, 3, 40, 56)
    assert 0.3 < float(found.std()) < 3
    assert not torch.equal(found[0], found[1])
