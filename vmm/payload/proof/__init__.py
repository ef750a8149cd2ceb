# SPDX-License-Identifier: GPL-2.0-or-later
"""How a feature is proven: a lab that makes guests, what the host halves have in common, verdicts, the table."""
