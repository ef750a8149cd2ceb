# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 14400
# checks: repeat.json
# The whole table again and again, 20 times: a row that does not say the same each time is named.
python3 -m tools.hostlab.inside.repeat
status=$?
[ $status -eq 1 ] || exit $status
