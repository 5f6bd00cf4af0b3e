# Copyright 2026 The ood_perception authors
#
# Licensed under the Apache License, Version 2.0 (the "License");
# you may not use this file except in compliance with the License.
# You may obtain a copy of the License at
#
#     http://www.apache.org/licenses/LICENSE-2.0
#
# Unless required by applicable law or agreed to in writing, software
# distributed under the License is distributed on an "AS IS" BASIS,
# WITHOUT WARRANTIES OR CONDITIONS OF ANY KIND, either express or implied.
# See the License for the specific language governing permissions and
# limitations under the License.

"""What this machine's CPU multiplies fast."""

from __future__ import annotations

from pathlib import Path


def has_bfloat16_tiles() -> bool:
    """Whether the CPU multiplies bfloat16 matrices in tiles (AMX); False where it is not known."""
    return 'amx_bf16' in _flags()


def has_int8_instructions() -> bool:
    """Whether the CPU multiplies int8 faster than float32 (VNNI); False where it is not known."""
    return 'vnni' in _flags()


def _flags() -> str:
    try:
        return Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:
        return ''
