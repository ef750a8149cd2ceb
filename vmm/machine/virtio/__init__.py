# SPDX-License-Identifier: GPL-2.0-or-later
"""Virtio devices: split queues, the virtio-mmio transport, and what stands behind it. `attach.py` is the way in."""
