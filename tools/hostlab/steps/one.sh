# limit: 900
python3 -m vmm run memslots --timeout 6 --trace $OUT/memslots.jsonl &
pid=$!
for n in 1 2 3; do
sleep 8
echo "== $n"; cat /proc/uptime
for t in /proc/$pid/task/*; do echo "-- $(cat $t/comm) $(cut -d' ' -f3,14,15,39 $t/stat) $(cat $t/wchan)"; cat $t/stack; done
done
ls -la $OUT; tail -c 3000 $OUT/memslots.jsonl
echo 8 > /proc/sys/kernel/printk
echo l > /proc/sysrq-trigger
sleep 1
kill $pid
exit 0
