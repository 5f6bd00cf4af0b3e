# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
# Puts the command `ood` on PATH; sourced by the setup files of the workspace.
_colcon_prepend_unique_value PATH "$COLCON_CURRENT_PREFIX/lib/ood_perception"
