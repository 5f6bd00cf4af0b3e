# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood export`: a profile's segmentor for other runtimes."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from ood_perception.cli.options import ProfileName


def export(
    path: Annotated[Path, typer.Argument(help='File to write.')],
    profile: ProfileName = 'compact',
    format: Annotated[str, typer.Option(help='onnx or pt2 (torch.export).')] = 'onnx',
    size: Annotated[str, typer.Option(help='WIDTHxHEIGHT of the camera frames.')] = '640x480',
    tolerance: Annotated[float, typer.Option(help='Largest relative difference to eager.')] = 1e-3,
) -> None:
    """Export the network of a profile and check the export against eager."""
    from ood_perception.building import image_size, load_segmentor
    from ood_perception.cli.progress import parse_size
    from ood_perception.engines.export import export as export_model
    from ood_perception.profile import Profile, ProfileError

    try:
        loaded = Profile.load(profile)
        segmentor = load_segmentor(loaded)
        width, height = parse_size(size)
        gap = export_model(segmentor, image_size(loaded, segmentor, height, width), path, format)
    except (ProfileError, ValueError, ImportError) as error:
        raise typer.BadParameter(str(error)) from error
    typer.echo(f'{path}: {path.stat().st_size / 2**20:.1f} MB, differs from eager by {gap:.1e}')
    if gap > tolerance:
        typer.echo(f'that is more than the tolerance {tolerance:.1e}', err=True)
        raise typer.Exit(1)
