# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""`ood run`: pictures or a video through a profile, without ROS."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def run(
    source: Annotated[str, typer.Argument(help='Folder of pictures, a picture or a video.')],
    output: Annotated[Path, typer.Argument(help='Folder of the results.')] = Path('ood_output'),
    profile: Annotated[str, typer.Option(help='Name or path of a profile.')] = 'compact',
    device: Annotated[str, typer.Option(help='auto, cpu or cuda[:N].')] = 'auto',
    engine: Annotated[str, typer.Option(help='auto or an engine.')] = 'auto',
    limit: Annotated[int, typer.Option(help='Most frames, 0 = all.')] = 0,
) -> None:
    """Write for every frame: NAME_overlay.jpg, NAME_heatmap.png, NAME_instances.png, NAME.json."""
    import json

    import cv2
    import numpy as np

    from ood_perception.bags.sources import SourceError, open_source
    from ood_perception.cli.progress import CONSOLE, bar, fail
    from ood_perception.detections import detections_json
    from ood_perception.drawing import draw
    from ood_perception.pipeline import Pipeline

    try:
        opened = open_source(source)
        pipeline = Pipeline.from_profile(profile, device, engine)
    except (SourceError, ValueError) as error:
        raise fail(error) from None
    output.mkdir(parents=True, exist_ok=True)
    wants = ('heatmap', 'instances')
    count = 0
    with bar(f'{opened.name}', limit or opened.length or None) as show:
        for image in opened.frames():
            result = pipeline([image], streams=['camera'], wants=wants)[0]
            name = f'{count:06d}'
            overlay = draw(image, result.heatmap, result.instances)
            picture = np.ascontiguousarray(overlay[..., ::-1])
            cv2.imwrite(str(output / f'{name}_overlay.jpg'), picture)
            cv2.imwrite(str(output / f'{name}_heatmap.png'), result.heatmap)
            cv2.imwrite(str(output / f'{name}_instances.png'), result.instances)
            text = json.dumps(detections_json(result), indent=2) + '\n'
            (output / f'{name}.json').write_text(text)
            count += 1
            show(count)
            if limit and count >= limit:
                break
    CONSOLE.print(f'{count} frames in {output}', highlight=False)
