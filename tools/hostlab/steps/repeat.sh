# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 14400
# The whole table again and again, 20 times: a row that does not say the same each time is named.
python3 - <<'EOF'
import collections, json, os, subprocess, sys
seen = collections.defaultdict(collections.Counter)
for run in range(20):
    done = subprocess.run([sys.executable, "-m", "vmm", "probe", "--api", "--json"], stdout=subprocess.PIPE)
    doc = json.loads(done.stdout)
    for row in doc["features"] + doc["topics"]:
        seen[row["name"]][row["verdict"]] += 1
        if len(seen[row["name"]]) > 1:
            print(f"run {run + 1}: {row['name']} {row['verdict']}: {row['reason'] or row['summary']}", flush=True)
    print(f"run {run + 1} took {doc['elapsed_s']:.0f} s, status {done.returncode}", flush=True)
unsteady = {name: dict(verdicts) for name, verdicts in seen.items() if len(verdicts) > 1}
where = os.environ["OUT"]
with open(os.path.join(where, "repeat.json"), "w") as file:
    json.dump({name: dict(verdicts) for name, verdicts in seen.items()}, file, indent=2)
print(f"{len(seen)} rows, {len(unsteady)} of them not the same each time: {unsteady}")
sys.exit(bool(unsteady))
EOF
