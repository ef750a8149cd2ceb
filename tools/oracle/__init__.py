# SPDX-License-Identifier: GPL-2.0-or-later
"""The same random programs on KVM and on Unicorn: `python -m tools.oracle COUNT --seed S`. docs/oracle.md."""
