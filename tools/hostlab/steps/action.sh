# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 1200
# checks: action.json
# action.yml's shell as a runner of GitHub's runs it: a user with sudo, udev, a /dev/kvm that is the group's.
# Status 1 says that something is not as it should be: what, is in the list.
python3 -m tools.hostlab.inside.action
status=$?
[ $status -eq 1 ] || exit $status
