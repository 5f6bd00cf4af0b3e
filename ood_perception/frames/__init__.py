# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""Bytes to tensors to arrays: decode, colour, size, upload, download. Knows no file formats."""
