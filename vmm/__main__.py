# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m vmm` is the command `pyvmm`."""

import sys

from vmm.cli import main

sys.exit(main())
