# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

from __future__ import annotations

import dataclasses
import logging
import threading

import pytest
import torch
from torch import nn

pytest.importorskip('openvino', reason='needs openvino')
from ood_perception import Pipeline
from ood_perception.engines import small
from ood_perception.engines.openvino import convert
from ood_perception.engines.small import SmallEngine
from ood_perception.masks import create_mask_model, create_prompts
from ood_perception.models.int8 import observed_ranges, quantised
from ood_perception.profile import Profile, StageConfig
from ood_perception.ros.diagnostics import pipeline_values


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv('OOD_ENGINE_CACHE', str(tmp_path))


def networks():
    """The shipped networks, each with inputs of the sizes that it meets."""
    prompts, masks = create_prompts('score_detector'), create_mask_model('compact')
    planes = [torch.randn(n, 4, h, w) for n, h, w in ((1, 348, 464), (3, 60, 44), (1, 8, 12))]
    crops = [torch.randn(n, 5, 96, 96) for n in (1, 4)]
    return [(prompts.network, planes), (masks.head, crops)]


@pytest.mark.parametrize('which', [0, 1], ids=['score detector', 'mask head'])
def test_answers_are_those_of_pytorch_at_every_size(which):
    network, inputs = networks()[which]
    engine = SmallEngine(network)
    with torch.inference_mode():
        for x in inputs:
            torch.testing.assert_close(engine(x), network(x), atol=2e-4, rtol=1e-3)
    assert len(engine._ready) == len({x.shape[1:] for x in inputs})


@torch.inference_mode()
def test_in_int8_answers_are_near_those_of_pytorch_or_the_same():
    network, inputs = networks()[1]
    rounded = quantised(network, observed_ranges(network, inputs, network.ranges.__contains__))
    engine = SmallEngine(network, int8=rounded)
    found, wanted = engine(inputs[0]), network(inputs[0])
    gap = float((found - wanted).pow(2).mean().sqrt() / wanted.std())
    assert 1e-4 < gap < small.ROUNDED_TOLERANCE
    # ranges of other weights: float32 answers, and that is no fault
    name = next(iter(network.ranges))
    wrong = quantised(network, {**network.ranges, name: (0.0, 1e-3)})
    engine = SmallEngine(network, int8=wrong)
    torch.testing.assert_close(engine(inputs[0]), wanted, atol=2e-4, rtol=1e-3)
    assert engine.fault is None


def test_a_later_start_converts_nothing(tmp_path):
    network, inputs = networks()[1]
    with torch.inference_mode():
        first = SmallEngine(network)(inputs[0])
    kept = {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()}
    assert kept
    with torch.inference_mode():
        assert SmallEngine(network)(inputs[0]).equal(first)
    assert {path: path.stat().st_mtime_ns for path in tmp_path.iterdir()} == kept


def test_a_live_engine_answers_with_pytorch_and_converts_beside():
    network, inputs = networks()[0]
    engine = SmallEngine(network, live=True)
    with torch.inference_mode():
        assert engine(inputs[0]).equal(network(inputs[0]))  # PyTorch's own answer
        assert engine.wait(120)
        assert list(engine._ready) == [tuple(inputs[0].shape[1:])]
        torch.testing.assert_close(engine(inputs[0]), network(inputs[0]), atol=2e-4, rtol=1e-3)


def test_frames_go_on_while_networks_are_converted():
    """A node does so at its first start; it calls other modules and the same ones."""
    (detector, (odds, *_)), (head, (crops, *_)) = networks()
    done: list[object] = []

    def convert_all() -> None:
        for network, x in ((detector, odds), (head, crops)):
            done.append(convert(network, tuple(x[:1].shape)))

    thread = threading.Thread(target=convert_all)
    thread.start()
    calls = 0
    with torch.inference_mode():
        wanted = [detector(odds[:1]).sum(), head(crops).sum()]
        while thread.is_alive() or not calls:
            assert [detector(odds[:1]).sum(), head(crops).sum()] == wanted
            calls += 1
    assert len(done) == 2


class Watching(nn.Module):
    """A network that notes what its engine has ready whenever PyTorch runs it."""

    engine: SmallEngine
    seen: list[int]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return twice the input."""
        self.seen.append(len(self.engine._ready))
        return 2 * x


def test_nothing_is_ready_before_it_was_checked():
    """Frames of another thread would find the request busy with the check, and give it up."""
    network = Watching()
    network.seen = []
    engine, x = SmallEngine(network, live=True), torch.randn(1, 2, 4, 4)
    object.__setattr__(network, 'engine', engine)  # not as a part of it
    with torch.inference_mode():
        assert engine(x).equal(2 * x)
        assert engine.wait(120)
        torch.testing.assert_close(engine(x), 2 * x, atol=1e-5, rtol=0)
    assert len(engine._ready) == 1
    assert len(network.seen) > 1
    assert set(network.seen) == {0}


class Undecided(nn.Module):
    """A network that no exporter takes: the way through it depends on the numbers."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Double what is positive in the mean, else return it."""
        return 2 * x if float(x.mean()) > 0 else x


@pytest.mark.parametrize('live', [False, True])
def test_what_cannot_be_converted_runs_in_pytorch_and_is_named(live, caplog):
    caplog.set_level(logging.INFO)
    engine, x = SmallEngine(Undecided(), live=live), torch.ones(2, 3, 4, 4)
    with torch.inference_mode():
        for _ in range(3):
            assert engine(x).equal(2 * x)
            assert engine.wait(120)
    assert caplog.text.count('Undecided runs in PyTorch, not in OpenVINO') == 1


def test_under_autocast_and_in_bfloat16():
    """The mask head is called under autocast on CPUs with matrix units."""
    network, inputs = networks()[1]
    engine = SmallEngine(network, bfloat16=True)
    with torch.inference_mode(), torch.autocast('cpu', torch.bfloat16):
        found = engine(inputs[1])
    assert found.dtype == torch.float32
    assert engine.fault is None
    with torch.inference_mode():
        wanted = network(inputs[1])
    assert float((found - wanted).pow(2).mean().sqrt() / wanted.std()) < 0.05


def with_score_detector():
    return dataclasses.replace(Profile.load('compact'), prompts=StageConfig('score_detector'))


@pytest.mark.parametrize(('engine', 'compiles'), [('eager', False), ('openvino', True)])
def test_the_pipeline_s_engine_decides(engine, compiles):
    pipeline = Pipeline.from_profile(with_score_detector(), 'cpu', engine)
    parts = [pipeline.outliner.prompts.network, pipeline.outliner.mask_model.head]
    assert [isinstance(part, SmallEngine) for part in parts] == [compiles] * 2


def test_a_pipeline_tells_of_a_small_network_that_fell_back(monkeypatch):
    def refuse(*_):
        raise RuntimeError('no such instruction')

    monkeypatch.setattr(small, 'compile_network', refuse)
    pipeline = Pipeline.from_profile(with_score_detector(), 'cpu', 'openvino')
    assert pipeline.faults() == []
    pipeline.warm_up([(48, 64)])
    reasons = [fault.reason for fault in pipeline.faults()]
    assert len(reasons) == 2
    assert all('no such instruction' in reason for reason in reasons)
    assert 'no such instruction' in pipeline_values(pipeline)['engine_fault']
