# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 2400
# The tests that are meant for every host. Only files that name the marker are handed to pytest: on an emulated CPU it takes
# minutes to import the rest. The limit of one test is many times that of a real machine, which is ten to fifty times
# faster. Status 1 says that some failed: which, and whether that was expected, is in the report.
files=$(grep -l every_host tests/kvm/test_*.py) || exit 5
# The words are meant to be split: these names have no spaces. TESTS is of $LAB/parameters: a selection, or nothing.
marks=every_host
[ -n "$TESTS" ] || marks='every_host and not on_demand'
pytest $files -m "$marks" -k "$TESTS" -p no:cacheprovider -o timeout=900 -v --durations=5 --junitxml="$OUT/junit.xml"
status=$?
[ $status -eq 1 ] || exit $status
