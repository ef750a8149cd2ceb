# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 1200
# checks: user.json
# A user who is not root: the messages, doctor's advice done word by word, then the whole table.
# Status 1 says that something is not as it should be: what, is in the list.
python3 -m tools.hostlab.inside.user
status=$?
[ $status -eq 1 ] || exit $status
