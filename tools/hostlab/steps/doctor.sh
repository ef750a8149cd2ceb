# SPDX-License-Identifier: GPL-2.0-or-later
# What kind of host this is, by pyvmm's own measurement.
python3 -m vmm doctor --json >"$RESULTS/doctor.json"
