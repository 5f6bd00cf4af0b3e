# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""How the weights that ship with ood_perception were made; not part of the installed package."""
