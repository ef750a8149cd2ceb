# SPDX-License-Identifier: GPL-2.0-or-later
# The whole table. Status 1 says that something is broken: whether that was expected is not decided here.
python3 -m vmm probe --api --save "$RESULTS/probe.json" 2>&1
status=$?
[ $status -eq 1 ] || exit $status
