# SPDX-License-Identifier: GPL-2.0-or-later
"""Many hosts at once, by Dask's distributed scheduler: a local cluster, or one that is there."""
