#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0-or-later
# The first process of a Linux guest: the usual file systems, the drivers of the virtio devices that are there, then
# /run.sh if there is one, else a shell on the console. The machine is powered off when that ends.
echo "init: started"
export PATH=/bin:/sbin:/usr/bin:/usr/sbin HOME=/root ENV=/etc/profile TERM=${TERM:-dumb}
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
/bin/busybox --install -s /bin
[ -d /dev/pts ] || mkdir /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /tmp

load() { # a file with the names of modules, in the order in which each finds what it needs
    for module in $(cat "$1"); do
        [ -d "/sys/module/$module" ] || insmod "/lib/modules/$module.ko"
    done
}

load /lib/modules/bus
for device in /sys/bus/virtio/devices/*; do
    [ -e "$device/device" ] || continue
    read -r kind <"$device/device"
    [ ! -e "/lib/modules/virtio-$kind" ] || load "/lib/modules/virtio-$kind"
done
# A console that is a virtio device is there from here on; what was said before is in the kernel's log alone.
hvc=/dev/hvc0
read -r words </proc/cmdline
case " $words " in
*" console=hvc0"*) [ ! -c $hvc ] || exec <$hvc >$hvc 2>&1 ;;
*) hvc= ;;
esac
ip link set lo up
read -r seconds _ </proc/uptime
echo "init: ready, $seconds s after the kernel's start"

status=0
if [ -e /run.sh ]; then
    sh /run.sh
    status=$?
else
    echo "a shell; \`facts\` shows the machine, \`poweroff\` or ^D ends it"
    if [ -c "$hvc" ]; then setsid sh -c "exec sh <$hvc >$hvc 2>&1"; else setsid cttyhack sh; fi
fi
if [ $status -ne 0 ]; then # a power-off would be a good end, and so would a reset: a triple fault is none
    echo "init: the script ended with status $status"
    echo triple >/sys/kernel/reboot/type
    reboot -f
fi
poweroff -f
