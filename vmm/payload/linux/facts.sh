#!/bin/sh
# SPDX-License-Identifier: GPL-2.0-or-later
# What Linux sees of its machine, a line each: a name, then its value.
fact() { # name, file; nothing where there is no such file
    [ ! -r "$2" ] || echo "$1 $(cat "$2")"
}
echo "kernel $(uname -r)"
echo "cpus $(nproc)"
fact clocksource /sys/devices/system/clocksource/clocksource0/current_clocksource
fact clocksources /sys/devices/system/clocksource/clocksource0/available_clocksource
fact clockevent /sys/devices/system/clockevents/clockevent0/current_device
for disk in /sys/block/vd*; do
    [ ! -e "$disk/size" ] || echo "disk ${disk##*/} $(cat "$disk/size") sectors, read-only $(cat "$disk/ro")"
done
for card in /sys/class/net/*; do
    [ ! -e "$card/device/driver" ] || echo "net ${card##*/} $(cat "$card/address") $(basename "$(readlink "$card/device/driver")")"
done
fact rng /sys/class/misc/hw_random/rng_current
for console in /sys/class/virtio-ports/*; do
    [ ! -e "$console" ] || echo "console ${console##*/}"
done
# The times of all CPUs; the eighth figure is what the host took, in hundredths of a second.
read -r _ user nice system idle iowait irq softirq steal _ </proc/stat
echo "steal $steal"
echo "irqs $(awk '/^ *(LOC|RES|CAL|TLB|HYP):/ { printf "%s%s=%d", sep, substr($1, 1, 3), $2 + $3; sep = " " }' /proc/interrupts)"
dmesg | sed -n 's/^\[ *[0-9.]*\] \(.*\)$/\1/; /kvm-clock\|kvm-guest\|[Kk][Vv][Mm] setup\|Hypervisor detected\|^smp: \|x2apic\|TSC deadline\|spinlocks/s/^/dmesg /p'
