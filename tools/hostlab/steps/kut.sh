# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 4200
# guest: others
# packages: qemu-system-x86
# Images of kvm-unit-tests that whoever runs the lab has built: each under pyvmm, then under this host's QEMU, with the
# time limit that was given. What each came to is judged outside: tools/hostlab/kut.py.
. "$LAB/parameters"
export KUT_TESTS KUT_TIMEOUT
python3 -m tools.hostlab.inside.kut
