# SPDX-License-Identifier: GPL-2.0-or-later
"""`python -m vmm` is the command `pyvmm`."""

from vmm.cli import command

command()
