# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 2400
# The whole table. Status 1 says that something is broken: whether that was expected is not decided here.
pyvmm probe --api --save "$OUT/probe.json"
status=$?
[ $status -eq 1 ] || exit $status
