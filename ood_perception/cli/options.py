# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""Options that several commands share."""

from __future__ import annotations

from typing import Annotated

import typer

Device = Annotated[str, typer.Option(help='auto, cpu or cuda[:N].')]
IntensityRange = Annotated[
    str, typer.Option(help='LOW,HIGH of images of more than 8 bits; empty = estimated.')
]
ProfileName = Annotated[str, typer.Option(help='Name or path of a profile.')]
