# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0


"""Muon: steps of equal length along every direction of a weight matrix; Adam's are per element."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
"""Coefficients a, b, c of X <- a X + (b A + c A^2) X with A = X X^T (Jordan et al., 2024)."""

MOMENTUM = 0.95


class Muon(torch.optim.AdamW):
    """
    Momentum, orthogonalised, for weights that are matrices; AdamW for all others.

    Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024, with Nesterov
    momentum; the length of a step as Liu et al., "Muon is scalable for LLM training", 2025: its
    root mean square is that of AdamW's, so both share learning rate and weight decay. A
    convolution's kernel is the matrix (outputs, inputs x height x width). Depthwise kernels,
    biases, norms and layers of two outputs are no matrices here.
    Arguments are AdamW's.
    """

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """Do one step; gradients of the matrices are gone after it."""
        for group in self.param_groups:
            for parameter in group['params']:
                if parameter.grad is None or not is_matrix(parameter):
                    continue
                state = self.state[parameter]
                if 'momentum_buffer' not in state:
                    state['momentum_buffer'] = torch.zeros_like(parameter)
                    state['step'] = torch.zeros(())  # AdamW looks for it when a state is loaded
                mean = state['momentum_buffer'].lerp_(parameter.grad, 1 - MOMENTUM)
                update = orthogonal(parameter.grad.lerp(mean, MOMENTUM).flatten(1))
                scale = 0.2 * max(update.shape) ** 0.5
                parameter.mul_(1 - group['lr'] * group['weight_decay'])
                parameter.add_(update.view_as(parameter), alpha=-group['lr'] * scale)
                parameter.grad = None  # AdamW passes it by
        return super().step(closure)


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon's step is made for it: more than two outputs and more than nine inputs."""
    return parameter.ndim >= 2 and parameter.shape[0] > 2 and parameter[0].numel() > 9


def orthogonal(matrix: Tensor, steps: int = 5) -> Tensor:
    """
    Bring all singular values of a matrix near 1 (0.7 to 1.2), its singular vectors kept.

    Args:
        matrix: float (m, n).
        steps: of the Newton-Schulz iteration.

    """
    a, b, c = NEWTON_SCHULZ
    x = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    x = x / x.norm().clamp(min=1e-7)
    for _ in range(steps):
        square = x @ x.T
        x = a * x + torch.addmm(square, square, square, beta=b, alpha=c) @ x
    return x.T if matrix.shape[0] > matrix.shape[1] else x
