# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""The choice between one thread and all, with made times."""

from __future__ import annotations

import pytest
import torch

from ood_perception.engines.crowding import (
    LAST_WAIT,
    CrowdedRequest,
    ThreadChoice,
    TorchThreads,
)


class Machine:
    """Two cores whose times for a call are set by hand."""

    def __init__(self) -> None:
        self.now = 0.0
        self.choice = ThreadChoice(clock=lambda: self.now)
        self.calls = {False: 0, True: 0}
        self.free()

    def free(self) -> None:
        self.seconds = {False: 0.06, True: 0.11}

    def crowded(self) -> None:
        self.seconds = {False: 0.4, True: 0.15}

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        self.calls = {False: 0, True: 0}
        while self.now < end:
            single = self.choice.next()
            self.now += self.seconds[single]
            self.calls[single] += 1
            self.choice.took(single, self.seconds[single])


def test_free_cores_are_all_used_and_nothing_else_is_tried() -> None:
    machine = Machine()
    machine.run(60)
    assert not machine.choice.single
    assert machine.calls[True] == 0


def test_crowded_cores_are_left_and_taken_again() -> None:
    machine = Machine()
    machine.run(5)
    machine.crowded()
    machine.run(5)
    assert machine.choice.single
    machine.run(120)
    assert machine.choice.single
    assert machine.calls[False] * 0.4 < 0.06 * 120  # what trying costs
    machine.free()
    machine.run(LAST_WAIT + 2)
    assert not machine.choice.single


def test_a_slow_machine_on_which_one_thread_is_no_better_stays_and_tries_seldom() -> None:
    machine = Machine()
    machine.run(5)
    machine.seconds = {False: 0.2, True: 0.3}
    machine.run(300)
    assert not machine.choice.single
    assert machine.calls[True] <= 3 * (300 / LAST_WAIT + 4)


def test_a_crowd_is_answered_at_once_however_long_the_wait_had_become() -> None:
    machine = Machine()
    machine.run(5)
    machine.seconds = {False: 0.09, True: 0.11}
    machine.run(200)
    assert not machine.choice.single
    machine.crowded()
    machine.run(5)
    assert machine.choice.single


def test_a_single_slow_call_changes_nothing() -> None:
    machine = Machine()
    machine.run(2)
    machine.choice.took(False, 5.0)
    machine.run(10)
    assert machine.calls[True] == 0


def test_the_request_runs_where_the_choice_says() -> None:
    class Request:
        def __init__(self, name: str) -> None:
            self.name = name

        def infer(self, inputs: dict[int, int], share_inputs: bool) -> tuple[str, int, bool]:
            return self.name, inputs[0], share_inputs

    request = CrowdedRequest(Request('all'), Request('one'))
    assert request.infer({0: 3}, share_inputs=True) == ('all', 3, True)
    request.choice.single = True
    assert request.infer({0: 4}, share_inputs=True) == ('one', 4, True)


@pytest.mark.parametrize('threads', [1, 2])
def test_openvino_gives_the_same_on_one_thread_and_on_all(threads: int) -> None:
    pytest.importorskip('openvino')
    import torch

    from ood_perception.engines.openvino import OpenVINOEngine

    from small_models import SmallSegmentor

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        engine = OpenVINOEngine(SmallSegmentor(), torch.device('cpu'), torch.float32)
        images = torch.randn(1, 3, 96, 128)
        first = engine(images)
        request = engine._requests[0, 3, 96, 128].get()
        engine._requests[0, 3, 96, 128].put(request)
        assert isinstance(request, CrowdedRequest) == (threads > 1)
        if threads > 1:
            request.choice.single = True
        torch.testing.assert_close(engine(images).logits, first.logits, rtol=1e-4, atol=1e-4)
    finally:
        torch.set_num_threads(before)


def test_torch_shares_its_threads_between_lanes() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        for lanes, share in ((1, 4), (2, 2), (3, 1), (8, 1)):
            with TorchThreads(torch.device('cpu'), lanes):
                assert torch.get_num_threads() == share
            assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_torch_goes_to_one_thread_and_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        threads = TorchThreads(torch.device('cpu'))
        threads._choice.single = True
        with threads:
            assert torch.get_num_threads() == 1
        assert torch.get_num_threads() == 4
        with pytest.raises(ValueError, match='lost'), threads:
            raise ValueError('lost')
        assert torch.get_num_threads() == 4
    finally:
        torch.set_num_threads(before)


def test_torch_keeps_its_threads_for_a_gpu() -> None:
    before = torch.get_num_threads()
    threads = TorchThreads(torch.device('cuda'))
    with threads:
        threads.took(1.0)
        assert torch.get_num_threads() == before
