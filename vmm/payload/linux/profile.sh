# SPDX-License-Identifier: GPL-2.0-or-later
# Of the shell: no init is there to be told, the kernel is.
poweroff() { busybox poweroff -f; }
halt() { busybox poweroff -f; }
reboot() { busybox reboot -f; }
