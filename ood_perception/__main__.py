# SPDX-FileCopyrightText: 2026 The ood_perception authors
# SPDX-License-Identifier: Apache-2.0
"""`python -m ood_perception`: the command `ood` where its folder is not on PATH."""

from ood_perception.cli.main import main

if __name__ == '__main__':
    main()
