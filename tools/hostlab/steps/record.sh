# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 3600
# Records what tests judge again where no such host is: traces of runs (tests/traces/KIND/), and the evidence of each proof
# of a feature (tests/evidence/). Nothing is judged here; what came back is looked at and committed.
mkdir -p "$OUT/traces"
status=0
for payload in hypercalls map_gpa_range pv_eoi; do
    python3 -m vmm run "$payload" --trace "$OUT/traces/$payload.jsonl" || status=1
done
PYTHONPATH=. python3 tests/traces/record.py "$OUT/traces/hypercall_exits.jsonl" || status=1
PYTHONPATH=. python3 tests/evidence/record.py "$OUT/evidence.json" || status=1
exit $status
