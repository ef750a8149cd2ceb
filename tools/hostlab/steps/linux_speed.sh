# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 5000
# checks: linux_speed.json
# guest: linux
# packages: qemu-system-x86
# The same kernel and initial file system under pyvmm and under QEMU's microvm with KVM, in turns: seconds from the start of
# the program to the first line of init, resident memory then, and what the guest gets of its disk and network card. The
# ratios are judged, never the seconds.
python3 -m tools.hostlab.inside.linux_speed
status=$?
[ $status -eq 1 ] || exit $status
