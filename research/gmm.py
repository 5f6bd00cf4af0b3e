# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Training of a Gaussian-mixture head (GMMSeg): Sinkhorn assignment, memory, momentum estimates.

Every pixel is assigned to a component of its class by optimal transport; features of correctly
classified pixels go to a ring memory per component, from which means and deviations follow with
momentum. No gradient reaches means or deviations: they are statistics.

Paper: "GMMSeg: Gaussian Mixture based Generative Semantic Segmentation Models", section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ood_perception.frames.resize import full
from ood_perception.labels import Label
from research.losses import cross_entropy

NO_COMPONENT = -1
"""Contrast target of pixels without a label (255 may be the number of a component)."""


@dataclass(frozen=True)
class GmmSettings:
    """
    How a GMM head learns; the defaults are those of the UEM's stage 1.

    Attributes:
        update_interval: steps between two updates of means and deviations (UEM head: 3).
        momentum: of the means.
        memory_size: slots of the ring memory of each component.
        max_samples: features written per component and step at most.
        sinkhorn_iterations: of the assignment.
        sinkhorn_eps: temperature of the assignment.

    """

    update_interval: int = 5
    momentum: float = 0.999
    memory_size: int = 8000
    max_samples: int = 20
    sinkhorn_iterations: int = 3
    sinkhorn_eps: float = 0.05


def component_log_likelihood(x: Tensor, means: Tensor, deviations: Tensor) -> Tensor:
    """
    Log density of diagonal Gaussians.

    Args:
        x: float (N, D).
        means: float (K, M, D).
        deviations: float (K, M, D), standard deviations (not variances).

    Returns:
        (N, K, M), -D/2 log 2pi - sum log s - 1/2 sum ((x - mu) / s)^2; float32, or float64
        where x is.

    """
    k, m, d = means.shape
    x = full(x)
    mu = means.reshape(k * m, d).to(x.dtype)
    deviation = deviations.reshape(k * m, d).to(x.dtype)
    precision = deviation.pow(-2)
    # Expanded square: two matrix products instead of an (N, K M, D) array of differences.
    square = (
        x.square() @ precision.T - 2 * x @ (mu * precision).T + (mu.square() * precision).sum(1)
    )
    constant = -0.5 * d * math.log(2 * math.pi) - deviation.log().sum(1)
    return (constant - 0.5 * square).reshape(-1, k, m)


def sinkhorn(scores: Tensor, iterations: int = 3, eps: float = 0.05) -> Tensor:
    """
    Assign N pixels to M components so that every component gets an equal share.

    Args:
        scores: float (N, M), at most 1 in size (the caller divides by the largest).
        iterations: of alternating normalisation.
        eps: temperature; smaller is nearer to a hard assignment.

    Returns:
        float (N, M), rows sum to 1. The argmax of a row is the pixel's component.

    """
    n, m = scores.shape
    # A constant factor drops out in the first normalisation; this one keeps exp() finite.
    plan = torch.exp((scores - scores.max()) / eps).T
    plan = plan / plan.sum()
    for _ in range(iterations):
        plan = plan / plan.sum(1, keepdim=True).clamp(min=1e-30) / m
        plan = plan / plan.sum(0, keepdim=True).clamp(min=1e-30) / n
    return (plan * n).T


class GmmMemory(nn.Module):
    """
    Ring memory of features per component, with the official checkpoint's buffer names.

    Attributes:
        queue: float32 (K*M, D, memory_size), L2-normalised random features at first.
        queue_ptr: int64 (K*M,), next slot to write.
        iteration_counter: float32 (1,), training steps seen.

    """

    queue: Tensor
    queue_ptr: Tensor
    iteration_counter: Tensor

    def __init__(self, classes: int, components: int, dim: int, settings: GmmSettings) -> None:
        super().__init__()
        self.settings = settings
        queue = F.normalize(torch.randn(classes * components, dim, settings.memory_size), dim=1)
        self.register_buffer('queue', queue)
        self.register_buffer('queue_ptr', torch.zeros(classes * components, dtype=torch.int64))
        self.register_buffer('iteration_counter', torch.zeros(1))

    @torch.no_grad()
    def write(self, component: int, features: Tensor) -> None:
        """Write features (N, D) of one component; of more than max_samples, an even choice."""
        n = len(features)
        if n == 0:
            return
        if n > self.settings.max_samples:
            chosen = torch.linspace(0, n - 1, self.settings.max_samples, device=features.device)
            features = features[chosen.to(torch.int64)]
            n = len(features)
        size = self.queue.shape[-1]
        start = int(self.queue_ptr[component])
        slots = (start + torch.arange(n, device=features.device)) % size
        self.queue[component, :, slots] = features.T.to(self.queue.dtype)
        self.queue_ptr[component] = (start + n) % size

    @torch.no_grad()
    def update(self, means: Tensor, deviations: Tensor, classes: Tensor) -> None:
        """Update means and deviations (K, M, D) in place for the classes (C,) in the batch."""
        k, m, d = means.shape
        queue = self.queue.view(k, m, d, -1)[classes]
        centre = F.normalize(queue.sum(-1), dim=-1)
        spread = (queue - centre.unsqueeze(-1)).square().mean(-1)
        momentum = self.settings.momentum
        means[classes] = momentum * means[classes] + (1 - momentum) * centre
        deviations[classes] = torch.sqrt(spread + 0.01)


def gmm_training_step(
    head: Any, memory: GmmMemory, x: Tensor, label: Tensor
) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """
    One training forward of a GMM head; updates the memory and, when due, the head's statistics.

    Args:
        head: with parameters or buffers `means` and `diagonal` (K, M, D; diagonal = standard
            deviations) and layers `feat_norm` (LayerNorm over D), `mask_norm` (over K).
        memory: of the head.
        x: float (B, D, h, w), features.
        label: int (B, H, W), class ids, 254 and 255 are ignored.

    Returns:
        logits (B, K, h, w) and (contrast logits (B*h*w, K*M), contrast targets int64 (B*h*w,)
        with -1 where the label is ignored).

    """
    means, deviations = head.means.data, head.diagonal.data
    b, d, h, w = x.shape
    k, m = means.shape[:2]
    flat = x.permute(0, 2, 3, 1).reshape(-1, d)
    with torch.autocast(x.device.type, enabled=False):
        feature = F.normalize(head.feat_norm(full(flat)), dim=-1)
        means.copy_(F.normalize(means, dim=-1))
        log_prob = component_log_likelihood(feature, means.clone(), deviations.clone())
        scores = head.mask_norm(log_prob.amax(-1))
    logits = scores.reshape(b, h, w, k).permute(0, 3, 1, 2)
    small = F.interpolate(label[:, None].float(), (h, w), mode='nearest').long().reshape(-1)
    small = small.masked_fill(small == Label.UNKNOWN, Label.VOID)
    targets = _assign(memory, feature.detach(), log_prob.detach(), scores.detach(), small)
    interval = memory.settings.update_interval
    if int(memory.iteration_counter) % interval == 0:
        present = small[small != Label.VOID].unique()
        memory.update(means, deviations, _union(present, k))
    memory.iteration_counter += 1
    return logits, (log_prob.reshape(-1, k * m), targets)


@torch.no_grad()
def _assign(
    memory: GmmMemory, feature: Tensor, log_prob: Tensor, scores: Tensor, label: Tensor
) -> Tensor:
    """Contrast targets int64 (N,); writes correctly classified pixels to the memory."""
    components = log_prob.shape[-1]
    correct = scores.argmax(-1) == label
    targets = torch.full_like(label, NO_COMPONENT)
    settings = memory.settings
    for cls in label[label != Label.VOID].unique().tolist():
        rows = (label == cls).nonzero().squeeze(1)
        q = log_prob[rows, cls]
        q = q / q.abs().max().clamp(min=1e-12)
        plan = sinkhorn(q, settings.sinkhorn_iterations, settings.sinkhorn_eps)
        targets[rows] = components * cls + plan.argmax(1)
    rows = (correct & (targets != NO_COMPONENT)).nonzero().squeeze(1)
    feature, kept = _gather(feature[rows], targets[rows])
    for component in kept.unique().tolist():
        memory.write(component, feature[kept == component])
    return targets


def _distributed() -> bool:
    return torch.distributed.is_available() and torch.distributed.is_initialized()


def _gather(feature: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of all processes in the order of their ranks, so every memory stays the same."""
    if not _distributed():
        return feature, target
    world = torch.distributed.get_world_size()
    length = torch.tensor([len(target)], device=target.device)
    lengths = [torch.zeros_like(length) for _ in range(world)]
    torch.distributed.all_gather(lengths, length)
    most = max(int(n) for n in lengths)
    features = [feature.new_zeros(most, feature.shape[1]) for _ in range(world)]
    targets = [target.new_zeros(most) for _ in range(world)]
    pad = most - len(target)
    torch.distributed.all_gather(features, F.pad(feature, (0, 0, 0, pad)).contiguous())
    torch.distributed.all_gather(targets, F.pad(target, (0, pad)).contiguous())
    counts = [int(n) for n in lengths]
    return (
        torch.cat([f[:n] for f, n in zip(features, counts, strict=True)]),
        torch.cat([t[:n] for t, n in zip(targets, counts, strict=True)]),
    )


def _union(classes: Tensor, k: int) -> Tensor:
    """Class ids present in any process."""
    if not _distributed():
        return classes
    present = torch.zeros(k, device=classes.device)
    present[classes] = 1
    torch.distributed.all_reduce(present)
    return present.nonzero().squeeze(1)


def contrast_loss(contrast: tuple[Tensor, Tensor], beta: float = 0.01) -> Tensor:
    """
    Contrast term of both stages, beta CE(contrast).

    It is not multiplied by the alpha of the likelihood-ratio loss: the official code adds it as it
    is.

    Args:
        contrast: (logits (N, P), targets (N,) int with -1 = ignored) of `gmm_training_step`.
        beta: its weight.

    """
    return beta * cross_entropy(*contrast, ignore=NO_COMPONENT)


class GmmTraining(nn.Module):
    """Memory of a GMM head, and its training step in place of its forward pass."""

    def __init__(self, head: nn.Module, settings: GmmSettings) -> None:
        super().__init__()
        self._head = [head]  # in a list: its state belongs to the model
        means: Any = head.means
        classes, components, dim = means.shape
        self.memory = GmmMemory(classes, components, dim, settings)

    @classmethod
    def of(cls, model: nn.Module, name: str, settings: GmmSettings) -> GmmTraining | None:
        """Build it where the model's head of that name is a GMM, otherwise None."""
        head = dict(model.named_modules()).get(name)
        return cls(head, settings) if head is not None and hasattr(head, 'diagonal') else None

    def run(
        self, forward: Callable[[Any], Tensor], maps: list[Tensor], label: Tensor
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Run `forward`, with the head's part replaced by its training step."""
        head = self._head[0]
        found: list[tuple[Tensor, tuple[Tensor, Tensor]]] = []

        def step(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            found.append(gmm_training_step(module, self.memory, inputs[0], label))

        with head.register_forward_pre_hook(step):
            forward(maps)
        return found[0]
