# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 7200
# The kernel's own selftests of KVM: `make hosts SELFTESTS=1` builds them and lays them into the host.
python3 -m tools.hostlab.inside.selftests
