# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""OpenVINO for the small networks around the segmentor: one tensor in, one tensor out."""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn

from ood_perception.engines.background import Background
from ood_perception.engines.base import EngineEvent, first_line
from ood_perception.engines.choices import network_key, versions
from ood_perception.engines.openvino import MAX_COMPILED, compile_network, converted

log = logging.getLogger(__name__)

TOLERANCE = 0.01  # root mean square difference to PyTorch's answer over that one's deviation
ROUNDED_TOLERANCE = 0.1  # the same where the network computes in bfloat16 or int8


Requests = dict[bool, Any]  # whether on one thread -> inference request of OpenVINO


class SmallEngine(nn.Module):
    """
    Run a small network with OpenVINO on the CPU; where that does not work, with PyTorch.

    It maps float32 (N, ...) to float32 (N, ...), row by row, in evaluation mode. It is converted
    once for each size, as an `OpenVINOEngine` is, and its first answer is compared with PyTorch's.
    On one thread where torch is held to one, see `engines.crowding`. With `live` PyTorch answers
    until the conversion is done in the background. `int8` is a form that runs where it agrees.
    """

    def __init__(
        self,
        network: nn.Module,
        bfloat16: bool = False,
        live: bool = False,
        int8: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self._bfloat16, self._live, self._int8 = bfloat16, live, [int8] if int8 else []
        self._threads = torch.get_num_threads()
        self._ready: dict[tuple[int, ...], Requests] = {}
        self._background = Background()
        self.fault: EngineEvent | None = None

    def forward(self, x: Tensor) -> Tensor:
        """Run the network; see the class."""
        size = tuple(x.shape[1:])
        if size not in self._ready and self.fault is None:
            row = x[:1].clone()
            if self._live:
                self._background.add(f'{size}', lambda: self._prepare(row))
            else:
                self._prepare(row)
        requests = self._ready.get(size)
        if requests is None or self.fault is not None:
            return self._plain(x)
        try:
            return self._run(requests, x)
        except Exception as error:
            self._give_up(error)
            return self._plain(x)

    def wait(self, timeout: float = 60.0) -> bool:
        """Wait for conversions in the background; False when they took longer."""
        return self._background.wait(timeout)

    def _plain(self, x: Tensor) -> Tensor:
        found: Tensor = self.network(x)
        return found

    @staticmethod
    def _run(requests: Requests, x: Tensor) -> Tensor:
        request = requests[torch.get_num_threads() == 1]
        rows = x.float().contiguous().numpy()[:, None]
        found = [request.infer({0: row}, share_inputs=True)[0] for row in rows]
        return torch.cat([torch.from_numpy(row) for row in found])

    def _prepare(self, row: Tensor) -> None:
        """Convert, compile and check the best form that can be for the size of a row (1, ...)."""
        for network in (*self._int8, self.network):
            try:
                requests = self._checked(network, row)
            except Exception as error:
                if network is self.network:
                    self._give_up(error)
                    return
                name = type(self.network).__name__
                log.info('%s runs in float32, not in int8: %s', name, first_line(error))
                continue
            while len(self._ready) >= MAX_COMPILED:
                del self._ready[next(iter(self._ready))]
            # Only now: a request that the check still runs is busy for frames of another thread.
            self._ready[tuple(row.shape[1:])] = requests
            return

    def _checked(self, network: nn.Module, row: Tensor) -> Requests:
        """Requests of a network for the size of a row; an error where its answers differ."""
        shape = tuple(row.shape)
        found = converted(network, shape, f'{network_key(network)} {versions()}')
        requests = {
            single: compile_network(found, shape, threads, self._bfloat16).create_infer_request()
            for single, threads in ((False, self._threads), (True, 1))
        }
        expected, answer = self._plain(row).float(), self._run(requests, row)
        gap = float((answer - expected).pow(2).mean().sqrt() / expected.std().clamp(min=1e-6))
        rounded = self._bfloat16 or network is not self.network
        if not gap <= (ROUNDED_TOLERANCE if rounded else TOLERANCE):
            raise ValueError(f'its answers differ by {gap:.2g} of their spread')
        return requests

    def _give_up(self, error: Exception) -> None:
        name = type(self.network).__name__
        reason = f'{name} runs in PyTorch, not in OpenVINO: {first_line(error)}'
        self.fault = EngineEvent('openvino', reason, 'start again, or choose engine eager')
        log.info('%s', reason)
