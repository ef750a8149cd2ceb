# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 2400
# checks: images.json
# guest: others
# packages: memtest86+,xen-hypervisor-4.17-amd64,gnumach-image-1.8-486,ipxe,grub-pc-bin,grub-common
# Images that nobody here made, as Debian packages have them: each is started until it has said what it says of itself, and
# once more cut off, which has to be one line. Where ring 0 is emulated none of them comes that far.
python3 -m tools.hostlab.inside.images
status=$?
[ $status -eq 1 ] || exit $status
