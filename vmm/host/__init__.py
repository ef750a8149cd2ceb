# SPDX-License-Identifier: GPL-2.0-or-later
"""What this host is and lacks: asked of files, of KVM, and of small guests that measure it. It prints nothing."""
