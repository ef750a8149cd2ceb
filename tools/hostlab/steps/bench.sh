# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 1800
# The bench, quickly: that every row which needs such a host runs here. How fast an emulator is says nothing. pyvmm is
# installed and has no C program beside it: the tree's stands in for it, built where the tree was.
# Status 1 says that no hypercall row came, or that there is no such program.
packages=$(python3 -c 'import vmm; print(vmm.__path__[0])')/..
[ -x bench/floor ] || { echo "bench/floor was not built: pyvmm bench hello makes it"; exit 1; }
ln -sfn "$PWD/bench" "$packages/bench" && touch bench/floor
rows="hypercall_python hypercall pio_out pio_in mmio_write mmio_read rdmsr_python wrmsr_python pio_out_by_two
coalesced_python ioeventfd_python irqfd irqfd_c hlt_wake hlt_wake_c page_fault_uffd"
# The words are meant to be split: rows have no spaces.
pyvmm bench --quick $rows --json >"$OUT/bench.json"
python3 - "$OUT/bench.json" <<'END'
import json, sys
rows = {row["name"]: row for row in json.load(open(sys.argv[1]))["rows"]}
for name, row in rows.items():
    print(name, row["median_ns"], row["floor_ns"], row["ratio"], row["why"])
sys.exit(rows["hypercall_python"]["ratio"] is None)
END
