# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 3600
# checks: sabotage.json
# Features that are broken on purpose: each has to be noticed.
python3 -m tools.hostlab.inside.sabotage
status=$?
[ $status -eq 1 ] || exit $status
