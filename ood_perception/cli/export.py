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
    format: Annotated[
        str, typer.Option(help='onnx, pt2 (torch.export) or tensorrt-rtx (an engine for a GPU).')
    ] = 'onnx',
    gpu: Annotated[
        str, typer.Option('--for', help='GPU of a tensorrt-rtx engine: sm_89, ..., current.')
    ] = '',
    size: Annotated[str, typer.Option(help='WIDTHxHEIGHT of the camera frames.')] = '640x480',
    tolerance: Annotated[float, typer.Option(help='Largest relative difference to eager.')] = 1e-3,
) -> None:
    """Export the network of a profile and check the export against eager."""
    from ood_perception.building import image_size, load_segmentor
    from ood_perception.cli.progress import fail, parse_size
    from ood_perception.engines.export import export as export_model
    from ood_perception.profile import Profile, ProfileError

    try:
        loaded = Profile.load(profile)
        segmentor = load_segmentor(loaded)
        width, height = parse_size(size)
        shape = image_size(loaded, segmentor, height, width)
        gap = export_model(segmentor, shape, path, format, gpu)
    except (ProfileError, ValueError, ImportError) as error:
        raise fail(error) from error
    what = 'the ONNX that it is built from differs' if gpu else 'differs'
    typer.echo(f'{path}: {path.stat().st_size / 2**20:.1f} MB, {what} from eager by {gap:.1e}')
    if gap > tolerance:
        typer.echo(f'that is more than the tolerance {tolerance:.1e}', err=True)
        raise typer.Exit(1)
