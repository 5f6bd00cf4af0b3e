# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
Identity of a model: rejects learnt state that was fitted on a different one.

A score that keeps learnt features knows the identity of the model that feeds it, writes it into
its files, and refuses a file of another model when it reads the file, not while frames pass.
"""

from __future__ import annotations

from ood_perception.checkpoints.report import WeightsMissing
from ood_perception.checkpoints.store import resolve, sha256_of
from ood_perception.profile import Profile


def model_identity(profile: Profile) -> str:
    """
    Name the segmentor of a profile and its weights.

    Returns:
        The segmentor's name, and the first 12 hex digits of its weight file's sha256 where there
        is one on this machine, for example 'compact 5f70bf18a086'.
    """
    if not profile.segmentor.weights:
        return profile.segmentor.name
    try:
        path = resolve(profile.segmentor.weights)
    except WeightsMissing:
        return profile.segmentor.name
    return f'{profile.segmentor.name} {sha256_of(path)[:12]}'


def check_model(score: str, made_with: str, model: str) -> None:
    """
    Refuse state of another model.

    Args:
        score: name of the score, for the message.
        made_with: identity of the model that the state was learnt with, '' = not known.
        model: identity of the model in use, '' = not known.

    Raises:
        ValueError: both are known and differ.
    """
    if made_with and model and made_with != model:
        raise ValueError(
            f'score {score}: the state was learnt with the model {made_with!r}, this one is '
            f'{model!r}; learn anew (`ood learn-normal`), or use the profile it was learnt with'
        )


def check_width(score: str, held: int, given: int) -> None:
    """Refuse state of `held` features where the model gives `given` (0 = not known)."""
    if held and given and held != given:
        raise ValueError(
            f'score {score}: the state holds {held} features, the model gives {given}; it was '
            'learnt with another model or other stages; learn anew'
        )
