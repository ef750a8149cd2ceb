# SPDX-License-Identifier: GPL-2.0-or-later
# limit: 1500
# checks: fleet.json
# network: virtio_net
# Workers of a Dask scheduler that runs outside, on the loopback of the machine that the lab runs on: tools/hostlab/fleet.py
# asks them, and judges. The step ends when the scheduler does. SCHEDULER and WORKERS are ports: whoever wants a worker
# connects to the same port outside.
. "$LAB/parameters"
hostname "$NAME"
modprobe virtio_net
ip link set eth0 up
ip address add 10.0.2.15/24 dev eth0 # and no route: there is nothing else to reach
ip address show dev eth0 | tee "$OUT/network.txt"
# One that is killed is the lab's doing; that one did not come is seen outside.
for port in $WORKERS; do
    # Imported before it says that it is there: on an emulated CPU a first import takes longer than an answer may.
    python3 -m dask worker "tcp://10.0.2.2:$SCHEDULER" --name "$NAME/$port" --nthreads 1 --no-nanny --memory-limit 0 \
        --no-dashboard --listen-address "tcp://0.0.0.0:$port" --contact-address "tcp://127.0.0.1:$port" \
        --local-directory /tmp --death-timeout 300 --preload vmm.fleet.work &
done
wait
