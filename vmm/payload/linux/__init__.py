# SPDX-License-Identifier: GPL-2.0-or-later
"""What a Linux guest is given beside its kernel: an initial file system, made of a Debian's files or any other's."""
