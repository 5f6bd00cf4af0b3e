# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0

"""
The evaluation: metrics, data sets, bags, reports.

`ood evaluate`, `ood demo` and `ood bench` compute with it at a desk. It uses ood_perception, which
needs it nowhere but in these commands.
"""
