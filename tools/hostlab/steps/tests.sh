# SPDX-License-Identifier: GPL-2.0-or-later
# The tests that are meant for every host. PYVMM_REQUIRE_KVM: none may hide behind a skip.
export PYVMM_REQUIRE_KVM=1
# No cache, and the limit of a test many times that of a real machine: an emulated one is ten to fifty times slower.
python3 -m pytest tests/kvm -m every_host -p no:cacheprovider -o timeout=600 -q --durations=5 \
    --junitxml="$RESULTS/junit.xml"
