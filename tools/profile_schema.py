# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""JSON schema of a profile, for editors; what keys mean is read from the docstrings."""

from __future__ import annotations

import re
from typing import Any

from pydantic import TypeAdapter

from ood_perception.profile import Profile


def profile_schema() -> dict[str, Any]:
    """Schema whose properties all have a description."""
    schema = TypeAdapter(Profile).json_schema()
    for part in (schema, *schema['$defs'].values()):
        text, _, attributes = part['description'].partition('\n\nAttributes:\n')
        part['description'] = text
        for name, meaning in re.findall(r'^ {4}(\w+): (.*(?:\n {8}.*)*)', attributes, re.M):
            part['properties'][name]['description'] = ' '.join(meaning.split())
    return schema
