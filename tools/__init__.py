# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Tools of the repository: environment, docs pictures, reference tables."""
