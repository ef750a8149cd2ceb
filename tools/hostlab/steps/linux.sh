# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 5400
# checks: linux.json
# guest: linux
# Linux, the host's own kernel once more, as a guest of pyvmm: to a prompt on COM1, its devices, its paravirtual features,
# and its end. Status 1 says that something is not as it should be: what, is in the list.
python3 -m tools.hostlab.inside.linux
status=$?
[ $status -eq 1 ] || exit $status
