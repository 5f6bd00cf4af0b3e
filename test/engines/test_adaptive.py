# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""What the adaptive engine does when its engines are slow, wrong, broken or not ready."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ood_perception.engines import adaptive, faults
from ood_perception.engines.adaptive import AdaptiveEngine
from ood_perception.engines.base import Shape
from ood_perception.engines.choices import Choices
from ood_perception.engines.measure import measure_engines
from ood_perception.models.output import SegmentorOutput

SHAPE = (1, 3, 8, 12)
OTHER = (1, 3, 16, 12)


class Scripted:
    """An engine that answers the mean of the images, and misbehaves as it is told."""

    channels_last = True

    def __init__(self, name: str, **script: object) -> None:
        self.name = name
        self.rounded = bool(script.get('rounded', False))
        self.script = script
        self.fail: Callable[[int], Exception | None] = script.get('fail', lambda call: None)  # type: ignore[assignment]
        self.calls = 0
        self.prepared: list[Shape] = []
        self.seen: list[Shape] = []

    def __call__(self, images: Tensor) -> SegmentorOutput:
        self.calls += 1
        if images.shape[1] != 3:
            raise RuntimeError('expected 3 channels')
        error = self.fail(self.calls)
        if error is not None:
            raise error
        shape: Shape = tuple(images.shape)  # type: ignore[assignment]
        self.seen.append(shape)
        assert self.script.get('any_shape') or shape in self.prepared
        time.sleep(float(self.script.get('seconds', 0)))  # type: ignore[arg-type]
        logits = images.mean(1, keepdim=True) * float(self.script.get('factor', 1))  # type: ignore[arg-type]
        return SegmentorOutput(logits=logits + float(self.script.get('shift', 0)))  # type: ignore[arg-type]

    def prepare(self, shape: Shape) -> None:
        gate = self.script.get('gate' if self.prepared else 'first_gate')
        if isinstance(gate, threading.Event):
            assert gate.wait(10)
        if shape in self.script.get('refuses', ()):  # type: ignore[operator]
            raise RuntimeError('no such shape')
        self.prepared.append(shape)

    def shapes(self) -> list[Shape] | None:
        return None if self.script.get('any_shape') else list(self.prepared)


def probe(shape: Shape) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


class Rig:
    """An adaptive engine over scripted ones, with a clock that only the test moves."""

    def __init__(self, *names: str, scripts: dict[str, dict] | None = None, **options: object):
        self.now = 0.0
        self.notes: list[str] = []
        self.scripts = {'simple': {'any_shape': True}, **(scripts or {})}
        self.built: dict[str, list[Scripted]] = {name: [] for name in names}
        self.events: list[str] = []
        self.engine = AdaptiveEngine(
            [(name, lambda name=name: self.build(name)) for name in names],
            probe,
            note=self.notes.append,
            clock=lambda: self.now,
            **options,  # type: ignore[arg-type]
        )

    def build(self, name: str) -> Scripted:
        script = self.scripts.get(name, {})
        self.events.append(f'build {name}')
        if isinstance(gate := script.get('build_gate'), threading.Event):
            assert gate.wait(10)
        error = script.get('build')
        if isinstance(error, Exception):
            raise error
        made = Scripted(name, **script)
        self.built[name].append(made)
        return made

    def run(self, shape: Shape = SHAPE) -> SegmentorOutput:
        return self.engine(probe(shape))

    def check(self, shape: Shape = SHAPE) -> None:
        """Run, and see that the answer is right, whoever gave it."""
        output = self.run(shape)
        assert output.logits is not None
        torch.testing.assert_close(output.logits, probe(shape).mean(1, keepdim=True))

    def settle(self) -> None:
        assert self.engine.wait(10)


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adaptive, 'MEMORY_PAUSE', 0.0)
    monkeypatch.setattr('ood_perception.engines.measure.BUDGET', 0.0)


# ---- choosing ------------------------------------------------------------------------------


def test_the_fastest_engine_that_agrees_is_taken() -> None:
    scripts = {
        'simple': {'any_shape': True, 'seconds': 0.02},
        'wrong': {'factor': 2.0},
        'nan': {'factor': float('nan')},
        'good': {'seconds': 0.005},
        'slow': {'seconds': 0.03},
        'missing': {'build': ImportError("No module named 'missing'")},
    }
    rig = Rig(*scripts, 'simple', scripts=scripts, measure=True)
    rig.engine._order = ['wrong', 'nan', 'good', 'slow', 'missing', 'simple']
    rig.check()
    assert rig.engine.name == 'good'
    assert rig.engine._order == ['good', 'simple']
    for word in ('good', 'slow', 'simple', 'ms', '12x8'):
        assert word in rig.engine.why
    assert {note.split()[1] for note in rig.notes} == {'wrong', 'nan', 'missing'}
    assert rig.engine.faults() == []


@pytest.mark.parametrize(('shift', 'name'), [(0.05, 'rounds'), (0.5, 'simple')])
def test_an_engine_that_rounds_may_differ_a_little(shift: float, name: str) -> None:
    scripts = {
        'simple': {'any_shape': True, 'seconds': 0.02},
        'rounds': {'rounded': True, 'shift': shift},
    }
    rig = Rig('rounds', 'simple', scripts=scripts, measure=True)
    rig.run()
    assert rig.engine.name == name


def test_a_choice_is_kept_and_believed_only_while_it_holds(cache) -> None:
    slow = {'any_shape': True, 'seconds': 0.02}
    first = Rig('fast', 'simple', scripts={'simple': slow}, measure=True, choices=Choices('a'))
    first.check()
    again = Rig('fast', 'simple', scripts={'simple': slow}, measure=True, choices=Choices('a'))
    again.check()
    assert again.engine.name == 'fast'
    assert 'earlier start' in again.engine.why
    other = Rig('fast', 'simple', scripts={'simple': slow}, measure=True, choices=Choices('b'))
    other.check()
    assert 'earlier' not in other.engine.why  # another CPU, version or network
    scripts = {'simple': slow, 'fast': {'factor': 2.0}}
    wrong = Rig('fast', 'simple', scripts=scripts, measure=True, choices=Choices('a'))
    wrong.check()
    assert wrong.engine.name == 'simple'
    assert 'differ' in wrong.notes[0]


def test_a_passing_failure_is_not_kept_as_a_choice(cache) -> None:
    scripts = {'fast': {'build': RuntimeError('out of memory')}}
    Rig('fast', 'simple', scripts=scripts, measure=True, choices=Choices('a')).check()
    rig = Rig('fast', 'simple', measure=True, choices=Choices('a'))
    rig.check()
    assert 'earlier' not in rig.engine.why


@pytest.mark.parametrize(
    'content',
    [b'', b'{', b'[]', b'{"for": "x"}', b'\xff\xfe', b'{"for": "x", "milliseconds": {}}'],
)
def test_a_damaged_choice_costs_a_measurement(cache, content: bytes, caplog) -> None:
    choices = Choices('a')
    choices._path(SHAPE).write_bytes(content)
    rig = Rig('fast', 'simple', measure=True, choices=choices)
    rig.check()
    assert sum('measuring the engines again' in r.message for r in caplog.records) == 1
    assert choices.read(SHAPE) is not None


def test_a_folder_that_cannot_be_written_costs_one_line(tmp_path, monkeypatch, caplog) -> None:
    (tmp_path / 'file').write_text('in the way')
    monkeypatch.setenv('OOD_ENGINE_CACHE', str(tmp_path / 'file' / 'engines'))
    for _ in range(2):
        Rig('fast', 'simple', measure=True, choices=Choices('a')).check()
    lines = [r.message for r in caplog.records if 'OOD_ENGINE_CACHE' in r.message]
    assert len(lines) == 1
    assert 'cannot be written' in lines[0]


# ---- falling back --------------------------------------------------------------------------


def test_one_odd_failure_changes_nothing() -> None:
    fail = {'fail': lambda call: RuntimeError('odd') if call == 2 else None}
    rig = Rig('fast', 'simple', scripts={'fast': fail})
    for _ in range(3):
        rig.check()
    assert rig.engine.name == 'fast'
    assert rig.engine.faults() == []
    (event,) = rig.engine.events
    assert 'odd' in event.reason
    assert event.until is not None


def test_a_lasting_failure_brings_the_next_engine_which_is_loaded_first() -> None:
    scripts = {'fast': {'fail': lambda call: RuntimeError('lost') if call > 1 else None}}
    rig = Rig('fast', 'simple', scripts=scripts)
    rig.check()
    assert rig.engine.name == 'simple'
    assert rig.events == ['build fast', 'build simple']
    assert rig.notes == ['engine fast failed (lost); using simple instead']
    (event,) = rig.engine.faults()
    assert (event.engine, event.until) == ('fast', None)


def test_where_no_simpler_engine_can_be_built_the_failing_one_stays() -> None:
    broken = iter([None, *[RuntimeError('lost')] * 2])
    scripts = {
        'fast': {'fail': lambda call: next(broken, None)},
        'simple': {'build': RuntimeError('no memory for it')},
    }
    rig = Rig('fast', 'simple', scripts=scripts)
    with pytest.raises(RuntimeError, match='lost'):
        rig.run()
    assert rig.engine.name == 'fast'
    rig.check()


def test_images_that_no_engine_takes_are_at_fault_themselves() -> None:
    rig = Rig('fast', 'simple')
    rig.check()
    with pytest.raises(RuntimeError, match='3 channels'):
        rig.engine(torch.zeros(1, 4, 8, 12))
    assert rig.engine.name == 'fast'
    assert rig.engine.faults() == []
    rig.check()


@pytest.mark.parametrize(
    'error', [torch.OutOfMemoryError('none left'), RuntimeError('CUDA out of memory')]
)
def test_memory_that_comes_back_is_waited_for(error: Exception) -> None:
    rig = Rig('fast', 'simple', scripts={'fast': {'fail': lambda c: error if c == 2 else None}})
    rig.check()
    assert rig.engine.name == 'fast'
    assert rig.engine.faults() == []


def test_a_batch_without_room_is_the_callers_to_halve() -> None:
    error = torch.OutOfMemoryError('none left')
    rig = Rig('fast', 'simple', scripts={'fast': {'fail': lambda c: error if c > 1 else None}})
    rig.engine.prepare([(2, *SHAPE[1:])])
    with pytest.raises(torch.OutOfMemoryError):
        rig.run((2, *SHAPE[1:]))
    assert rig.engine.name == 'fast'


def test_an_engine_that_cannot_be_built_is_told_with_its_remedy() -> None:
    rig = Rig('fast', 'simple', scripts={'fast': {'build': ImportError("no 'fast' here")}})
    rig.check()
    assert rig.engine.name == 'simple'
    (event,) = rig.engine.faults()
    assert "no 'fast' here" in event.reason
    assert event.remedy
    rig.now = 1e6
    rig.check()
    rig.settle()
    assert rig.events.count('build fast') == 1  # what is not installed does not come by waiting


# ---- coming back ---------------------------------------------------------------------------


def test_an_engine_comes_back_after_a_pause_that_grows() -> None:
    broken = True
    scripts = {'fast': {'fail': lambda c: RuntimeError('lost') if broken else None}}
    rig = Rig('fast', 'simple', scripts=scripts)
    rig.check()
    pauses = []
    for _ in range(4):
        start, builds = rig.now, rig.events.count('build fast')
        while rig.events.count('build fast') == builds:
            rig.now += 0.5
            rig.check()
            rig.settle()
        pauses.append(rig.now - start)
    assert pauses == [1.0, 2.0, 4.0, 8.0]
    assert len(rig.engine.faults()) == 1  # one fault, however often it was tried
    broken = False
    rig.now += 100
    rig.check()
    rig.settle()
    rig.check()
    assert rig.engine.name == 'fast'
    assert rig.engine.faults() == []
    assert rig.notes[-1] == 'engine fast runs again'


def test_an_engine_that_comes_back_wrong_stays_away() -> None:
    broken = {'fail': lambda c: RuntimeError('lost') if c > 1 else None}
    rig = Rig('fast', 'simple', scripts={'fast': broken})
    rig.check()
    rig.scripts['fast'] = {'factor': 3.0}
    rig.now = 10
    rig.check()
    rig.settle()
    rig.check()
    assert rig.engine.name == 'simple'
    assert 'differ' in rig.engine.faults()[0].reason


def test_events_are_bounded() -> None:
    fail = {'fail': lambda call: RuntimeError('odd') if call % 2 == 0 else None}
    rig = Rig('fast', 'simple', scripts={'fast': fail})
    for _ in range(faults.MAX_EVENTS + 9):
        rig.check()
    assert len(rig.engine.events) == faults.MAX_EVENTS


# ---- new shapes ----------------------------------------------------------------------------


def test_a_new_size_of_a_file_is_prepared_at_once() -> None:
    rig = Rig('fast', 'simple')
    rig.check(SHAPE)
    rig.check(OTHER)
    assert rig.built['fast'][0].seen[-1] == OTHER
    assert rig.built['simple'] == []


def test_a_new_size_of_a_camera_does_not_wait() -> None:
    gate = threading.Event()
    rig = Rig('fast', 'simple', scripts={'fast': {'gate': gate}}, live=True)
    rig.engine.prepare([SHAPE])
    rig.check(OTHER)  # the gate is shut: this returns although nothing is prepared
    (fast,) = rig.built['fast']
    assert OTHER not in fast.seen
    gate.set()
    rig.settle()
    rig.check(OTHER)
    assert fast.seen[-1] == OTHER


@pytest.mark.parametrize('count', [2, 3, 5])
def test_a_new_batch_of_a_camera_is_exact(count: int) -> None:
    gate = threading.Event()
    rig = Rig('fast', 'simple', scripts={'fast': {'gate': gate}}, live=True)
    gate.set()
    rig.engine.prepare([SHAPE, (2, *SHAPE[1:])])
    gate.clear()
    rig.check((count, *SHAPE[1:]))
    gate.set()
    rig.settle()
    rig.check((count, *SHAPE[1:]))
    assert rig.built['fast'][0].seen[-1][0] == count


def test_a_size_that_cannot_be_prepared_is_left_to_the_simplest_engine() -> None:
    rig = Rig('fast', 'simple', scripts={'fast': {'refuses': [OTHER]}}, live=True)
    rig.engine.prepare([SHAPE])
    rig.run(OTHER)
    rig.settle()
    rig.check(OTHER)
    assert rig.engine.name == 'fast'
    assert 'no such shape' in rig.engine.faults()[0].reason
    rig.check(SHAPE)
    assert rig.built['fast'][0].seen[-1] == SHAPE


def test_a_camera_never_waits_for_the_engine_between() -> None:
    """Of two simpler engines the one that is ready runs at once, the better one a moment later."""
    gate = threading.Event()
    lost = {'fail': lambda call: RuntimeError('lost') if call > 1 else None}
    scripts = {'fast': lost, 'middle': {'first_gate': gate}}
    rig = Rig('fast', 'middle', 'simple', scripts=scripts, live=True)
    rig.engine.prepare([SHAPE])
    rig.check()
    assert rig.engine.name == 'simple'
    rig.check()
    gate.set()
    rig.settle()
    rig.check()
    assert rig.engine.name == 'middle'


def test_it_can_be_built_in_one_thread_and_used_in_another() -> None:
    rig = Rig('fast', 'simple')
    thread = threading.Thread(target=lambda: rig.engine.prepare([SHAPE]))
    thread.start()
    thread.join()
    rig.check()
    assert rig.engine.name == 'fast'


def test_a_camera_is_served_while_the_engines_are_measured() -> None:
    built = threading.Event()
    rig = Rig(
        'fast',
        'simple',
        measure=True,
        live=True,
        scripts={
            'fast': {'any_shape': True, 'build_gate': built},
            'simple': {'any_shape': True, 'seconds': 0.01},
        },
    )
    rig.engine.prepare([SHAPE], wait=False)
    rig.check()
    assert rig.engine.name == 'simple'
    assert 'measured' in rig.engine.why
    built.set()
    rig.settle()
    assert rig.engine.name == 'fast'
    rig.check()


def test_a_camera_is_served_while_the_engine_asked_for_is_prepared() -> None:
    gate = threading.Event()
    rig = Rig('fast', 'simple', scripts={'fast': {'first_gate': gate}}, live=True)
    for _ in range(3):
        rig.check()
    assert rig.engine.name == 'simple'
    assert rig.engine.why == 'needs no preparation; fast is being prepared'
    gate.set()
    rig.settle()
    rig.check()
    assert (rig.engine.name, rig.engine.why) == ('fast', 'asked for')
    assert rig.built['fast'][0].seen[-1] == SHAPE
    assert rig.notes == ['engine fast runs now']
    assert rig.engine.events == []


@pytest.mark.parametrize(
    ('script', 'reason'),
    [
        ({'refuses': [SHAPE]}, 'no such shape'),
        ({'factor': 3.0}, 'differ'),
        ({'build': ImportError("no 'fast' here")}, "no 'fast' here"),
    ],
)
@pytest.mark.parametrize('left', [['simple'], ['middle', 'simple']])
def test_a_camera_gets_the_next_engine_where_the_one_asked_for_fails(
    script: dict, reason: str, left: list[str]
) -> None:
    rig = Rig('fast', *left, scripts={'fast': script}, live=True)
    for _ in range(3):
        rig.check()
        rig.settle()
    assert (rig.engine.name, rig.engine.why) == (left[0], 'fast failed')
    (event,) = rig.engine.faults()
    assert reason in event.reason
    assert event.reason.endswith('using simple instead')
    assert rig.events.count('build fast') == 1


class Alone:
    """Counts the calls of engines while it is entered."""

    def __init__(self, engines: list[Scripted]) -> None:
        self.engines, self.counts = engines, []

    def __enter__(self) -> None:
        self.before = [engine.calls for engine in self.engines]

    def __exit__(self, *error: object) -> None:
        self.counts.append([e.calls - b for e, b in zip(self.engines, self.before, strict=True)])


def test_each_engine_is_timed_while_no_frame_runs() -> None:
    engines = {name: Scripted(name, any_shape=True) for name in ('fast', 'simple')}
    alone = Alone(list(engines.values()))
    times = measure_engines(list(engines), engines.__getitem__, probe(SHAPE), {}, lambda: alone)
    assert set(times) == {'fast', 'simple'}
    assert [bool(fast) for fast, _ in alone.counts] == [True, False]
    assert [bool(simple) for _, simple in alone.counts] == [False, True]


def test_closing_while_the_background_works_is_harmless() -> None:
    gate = threading.Event()
    rig = Rig('fast', 'simple', scripts={'fast': {'gate': gate}}, live=True)
    rig.engine.prepare([SHAPE])
    rig.run(OTHER)
    rig.engine.close()
    gate.set()
    rig.settle()
    assert rig.engine.name == ''
