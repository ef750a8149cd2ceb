# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 600
# What kind of host this is, by pyvmm's own measurement.
pyvmm doctor
pyvmm doctor --json >"$OUT/doctor.json"
