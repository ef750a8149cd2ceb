# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 3600
# A user who is not root: the messages, doctor's advice done word by word, then the whole table.
OUT=${OUT:-$RESULTS} python3 -m tools.hostlab.inside.user
