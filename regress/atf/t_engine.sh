# SPDX-License-Identifier: BSD-2-Clause
# Targets that serve I/O themselves, in lanes that threads poll: under load, while
# they wait, and when they fail.

. $(atf_get_srcdir)/subr.sh

NOFLUSH=0x800
DEFERRED=0x20000

# flag name bit: succeeds if a device's flags have the bit.
flag()
{
	[ $(($($H ioctl command=info name=$1 | dm_get flags) & $2)) -ne 0 ]
}

# counted name column: a number of hw.dm.counters for a device: column 5 is the I/Os
# that were held, 6 those that failed.
counted()
{
	local minor=$(($($H ioctl command=info name=$1 | dm_get minor)))
	sysctl -n hw.dm.counters | awk -v name=dm$minor -v column=$2 '
	    $1 == name { n = $column } END { print n + 0 }'
}

# over_and_over command ...: runs it until there is a file stop, and ignores errors.
over_and_over()
{
	while [ ! -f stop ]; do "$@" >/dev/null; done
	return 0
}

tables_descr="tables of all targets follow one another under I/O"
dm_test_case tables
tables_timeout=900
tables_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	# The same sectors in each.
	set -- "0 2000 delay $DISK1 0 1 $DISK1 0 2" "0 2000 linear $DISK1 0" \
	    "0 2000 log-writes $DISK1 $DISK2" "0 2000 dust $DISK1 0 512" \
	    "0 2000 flakey $DISK1 0 1000000 0 2 random_read_corrupt 0" \
	    "0 2000 unstriped 1 8 0 $DISK1 0" "0 2000 switch 1 64 0 $DISK1 0" \
	    "0 2000 delay $DISK1 0 0 $DISK1 0 1"
	dm_make ${P}a "$1"
	dm_start verify $H verify $MAPPER/r${P}a 2000 400 21
	dm_start churn $H churn ${P}a 60 "$@"
	for how in 0 $NOFLUSH 0 $NOFLUSH 0 $NOFLUSH; do
		$H ioctl command=suspend name=${P}a flags:$how >/dev/null
		$H ioctl command=resume name=${P}a >/dev/null
	done
	dm_join churn
	dm_join verify
	atf_check dmctl remove ${P}a
}

suspend_descr="suspend and resume while lanes are busy, wait and fail"
dm_test_case suspend
suspend_timeout=900
suspend_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	dm_make ${P}e "0 2000 error"
	dm_make ${P}f "0 1000 delay $MAPPER/${P}e 0 1" "1000 500 error"
	dm_make ${P}l "0 4000 log-writes $DISK1 $DISK2"
	dm_make ${P}a "0 2000 delay $MAPPER/${P}l 0 1" \
	    "2000 2000 delay $MAPPER/${P}l 2000 0 $MAPPER/${P}l 2000 2"
	dm_make ${P}b "0 2000 linear $MAPPER/${P}a 0"
	dm_make ${P}c "0 2000 linear $MAPPER/${P}a 2000"
	dm_start fails over_and_over $H read $MAPPER/r${P}f 0 65536
	dm_start syncs over_and_over $H sync $MAPPER/r${P}b
	dm_start verify1 $H verify $MAPPER/r${P}b 2000 150 31
	dm_start verify2 $H verify $MAPPER/r${P}c 2000 150 32
	i=0
	while [ $i -lt 12 ]; do
		for name in a l f; do
			[ $((i % 2)) = 0 ] && how=0 || how=$NOFLUSH
			$H ioctl command=suspend name=$P$name flags:$how \
			    >/dev/null || atf_fail "suspend $name"
		done
		for name in a f l; do
			atf_check dmctl resume $P$name
		done
		i=$((i + 1))
	done
	dm_join verify1
	dm_join verify2
	touch stop
	dm_join fails
	dm_join syncs
	dm_refuse EIO read $MAPPER/r${P}f 0 512
}

stalled_descr="lanes that wait for a component hold up nobody else"
dm_test_case stalled
stalled_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	dm_disk 3
	dm_make ${P}s "0 8000 linear $DISK1 5000"
	dm_make ${P}a "0 4000 delay $MAPPER/${P}s 0 1" \
	    "4000 100 linear $DISK2 5000" "4100 100 delay $DISK2 6000 1"
	dm_make ${P}l "0 4000 log-writes $MAPPER/${P}s $DISK3"
	dm_make ${P}c "0 4000 delay $DISK2 8000 1"
	atf_check dmctl suspend ${P}s
	before=$(counted ${P}s 5)
	for name in a l; do
		dm_start read$name $H read $MAPPER/r$P$name 0 65536
		dm_start write$name $H write $MAPPER/r$P$name 1048576 65536 0x41
		dm_start sync$name $H sync $MAPPER/r$P$name
	done
	until [ $(counted ${P}s 5) -ge $((before + 4)) ]; do sleep 1; done
	# All that does not go there goes on: devices, and the other lines.
	atf_check $H verify $MAPPER/r${P}c 4000 60 3
	atf_check $H sync $MAPPER/r${P}c
	dm_moves 51200 read $MAPPER/r${P}a $((4000 * 512)) 51200
	dm_moves 51200 write $MAPPER/r${P}a $((4100 * 512)) 51200
	for command in info status table deps; do
		atf_check -o not-empty $H ioctl command=$command name=${P}a
	done
	dm_make ${P}d "0 100 delay $DISK2 6000 1"
	dm_moves 51200 read $MAPPER/r${P}d 0 51200
	atf_check dmctl remove ${P}d
	# A suspend waits for what is under way, and a signal ends that.
	dm_start_child suspend dmctl suspend ${P}a
	until ps -p $(cat suspend.child) -o wchan | grep -q dm; do sleep 1; done
	kill $(cat suspend.child)
	dm_over suspend
	[ "$(cat suspend.status)" != 0 ] || atf_fail "the suspend was not ended"
	! flag ${P}a 2 || atf_fail "suspended after all"
	for job in reada writea synca writel; do
		[ ! -f $job.status ] || atf_fail "$job did I/O: $(cat $job.out)"
	done
	atf_check dmctl resume ${P}s
	for job in reada writea synca readl writel syncl; do
		dm_join $job
	done
	dm_moves 65536 read $MAPPER/r${P}s 1048576 65536 0x41
	atf_check $H verify $MAPPER/r${P}a 4000 60 4
	for name in a l c s; do
		atf_check dmctl remove $P$name
	done
}

removal_descr="removal of devices whose lanes hold I/O, and of who sent it"
dm_test_case removal
removal_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 2000 delay $DISK1 5000 3600000"
	dm_start_child writer $H write $MAPPER/r${P}a 0 65536 0x42
	dm_delayed ${P}a
	dm_refuse EBUSY ioctl command=remove name=${P}a
	atf_check -o ignore $H ioctl command=remove_all
	# A process that is to die does when its I/O is over.
	kill -9 $(cat writer.child)
	atf_check -o ignore $H ioctl command=remove name=${P}a flags:$DEFERRED
	flag ${P}a $DEFERRED || atf_fail "no deferred removal"
	atf_check -o ignore $H ioctl command=suspend name=${P}a flags:$NOFLUSH
	dm_over writer
	atf_check -o not-match:"${P}a" dmctl ls
	dm_moves 65536 read $RDISK1 $((5000 * 512)) 65536 0x42
	# Loaded only, or replaced before it ever ran.
	atf_check dmctl create ${P}a
	for i in 1 2 3; do
		dm_load ${P}a "0 2000 delay $DISK1 5000 1"
	done
	atf_check -o ignore $H ioctl command=clear name=${P}a
	dm_load ${P}a "0 2000 delay $DISK1 5000 1"
	atf_check dmctl remove ${P}a
	# Suspended, with a table that waits.
	dm_make ${P}a "0 2000 delay $DISK1 5000 1"
	dm_load ${P}a "0 2000 delay $DISK1 6000 1"
	atf_check dmctl suspend ${P}a
	atf_check dmctl remove ${P}a
}

race_descr="create, reload, resume, I/O and remove from all sides, with lanes"
dm_test_case race
race_timeout=900
race_body()
{
	dm_need
	dm_disk 1
	dm_race 200 "0 1000 delay $DISK1 5000 1" 9
}

flakey_descr="flakey's intervals, and a file system that meets errors"
dm_test_case flakey
flakey_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}t "0 100 flakey $DISK1 16000 1 1"
	good= bad=
	until [ -n "$good" -a -n "$bad" ]; do
		if $H read $MAPPER/r${P}t 0 512 >answer; then
			good=yes
		else
			dm_expect EIO "$(cat answer)" "a bad interval"
			bad=yes
		fi
	done
	dm_make ${P}a "0 10000 flakey $DISK1 4096 1000000 0"
	dm_newfs $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_pattern data 400
	atf_check cp data mnt/data
	atf_check cp data mnt/more
	atf_check $H fsync mnt/data
	atf_check $H fsync mnt/more
	dm_load ${P}a "0 10000 flakey $DISK1 4096 0 1 1 error_writes"
	atf_check dmctl resume ${P}a
	# ffs does not tell of all writes that fail, not even by fsync(2).
	dd if=data of=mnt/more bs=8k conv=notrunc 2>dd.err
	$H fsync mnt/more >answer
	[ $(counted ${P}a 6) -gt 0 ] || atf_fail "no write failed"
	dm_same "read while writes fail" data mnt/data
	dm_load ${P}a "0 10000 linear $DISK1 4096"
	atf_check dmctl resume ${P}a
	atf_check cp data mnt/again
	atf_check $H fsync mnt/again
	umount $(pwd)/mnt 2>/dev/null || atf_check umount -f $(pwd)/mnt
	atf_check -o ignore -e ignore fsck_ffs -fy $MAPPER/r${P}a
	atf_check -o ignore -e ignore fsck_ffs -fn $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_same "from before the errors" data mnt/data
	dm_same "from after the errors" data mnt/again
	atf_check umount $(pwd)/mnt
}

log_writes_descr="log-writes under a file system, and its log replayed"
dm_test_case log_writes
log_writes_body()
{
	dm_need
	dm_disk 1
	dm_disk 2 60000
	dm_disk 3
	dm_make ${P}a "0 10000 log-writes $DISK1 $DISK2"
	dm_newfs $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_pattern data 300
	atf_check cp data mnt/data
	atf_check umount $(pwd)/mnt
	# A mark stands before what no flush has made safe.
	atf_check $H sync $MAPPER/r${P}a
	atf_check -o ignore $H ioctl command=message name=${P}a sector:0 \
	    "message=mark first"
	atf_check $H sync $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	atf_check cp data mnt/more
	atf_check umount $(pwd)/mnt
	status=$($H ioctl command=status name=${P}a flags:0 |
	    sed -n 's/^cmd_data.*params=//p')
	atf_check dmctl remove ${P}a
	# Whatever the disk was before the log began, the log does not say.
	atf_check -o not-empty $H replay $RDISK2 $RDISK3 first
	atf_check -o ignore -e ignore fsck_ffs -fn $RDISK3
	dm_make ${P}b "0 10000 linear $DISK3 0"
	dm_mount $MAPPER/${P}b mnt
	dm_same "replayed up to the mark" data mnt/data
	[ ! -e mnt/more ] || atf_fail "what came after the mark is there"
	atf_check umount $(pwd)/mnt
	entries=$($H replay $RDISK2 $RDISK3) || atf_fail "replay: $entries"
	[ "$entries" -ge "${status%% *}" ] ||
	    atf_fail "$entries entries; the status was '$status'"
	for n in 1 3; do
		eval dd if=\$RDISK$n of=disk$n.all bs=51200 count=100 2>/dev/null
	done
	dm_same "all of the log replayed" disk1.all disk3.all
	# A log that fails ends, and I/O goes on.
	dm_make ${P}f "0 64 linear $DISK2 0" "64 1000 error"
	dm_make ${P}a "0 4000 log-writes $DISK1 $MAPPER/${P}f"
	event=$(($($H ioctl command=info name=${P}a | dm_get event_nr)))
	atf_check $H verify $MAPPER/r${P}a 4000 60 8
	atf_check $H sync $MAPPER/r${P}a
	atf_check $H verify $MAPPER/r${P}a 4000 60 8
	[ $(($($H ioctl command=info name=${P}a | dm_get event_nr))) -gt $event ] ||
	    atf_fail "no event of a log that failed"
}

swap_descr="swap on a device with a delay"
dm_test_case swap
swap_body()
{
	dm_need
	dm_disk 1 40000
	dm_swap_on "delay $DISK1 4096 1" "linear $DISK1 4096"
}

pressure_descr="paging to a device whose tables change while memory is short"
dm_test_case pressure
pressure_timeout=1800
pressure_body()
{
	dm_need
	[ -n "$(atf_config_get dm.disks "${DM_DISKS:-}")" ] ||
	    atf_skip "vnd(4) takes memory for I/O: name two disks of 64 MB"
	megabytes=$(($(sysctl -n hw.usermem64) / 1048576))
	[ $megabytes -lt 256 ] || atf_skip "$megabytes MB are too much to fill"
	dm_disk 1
	dm_disk 2
	for disk in $RDISK1 $RDISK2; do
		[ $($H query $disk | dm_get DIOCGMEDIASIZE) -ge 67108864 ] ||
		    atf_skip "$disk is smaller than 64 MB"
	done
	dm_make ${P}d "0 131072 striped 2 64 $DISK1 0 $DISK2 0"
	dm_make ${P}a "0 131072 linear $MAPPER/${P}d 0"
	echo $MAPPER/${P}a >dm.swaps
	atf_check -o ignore -e ignore swapctl -a $MAPPER/${P}a
	# More than there is, and less than with the swap.
	$H memory >before
	dm_start hog $H hog $(($(dm_get free <before) + 16)) 1
	# The device is never left suspended: who resumes it might have to be paged
	# in from it.
	changes=0
	while [ ! -f hog.status ]; do
		atf_check $H churn ${P}a 4 \
		    "0 131072 delay $MAPPER/${P}d 0 0 $MAPPER/${P}d 0 1" \
		    "0 131072 striped 2 64 $DISK1 0 $DISK2 0" \
		    "0 131072 delay $MAPPER/${P}d 0 1" \
		    "0 131072 linear $MAPPER/${P}d 0"
		atf_check $H churn ${P}d 2 \
		    "0 131072 striped 2 64 $DISK1 0 $DISK2 0"
		changes=$((changes + 6))
		# Paging is slow with each of these tables but the last.
		sleep 1
	done
	dm_join hog
	out=$(($($H memory | dm_get out) - $(dm_get out <before)))
	echo "$changes changes of tables, $out pages out"
	[ $out -gt 1000 ] || atf_fail "too little memory was wanted: $out pages"
	atf_check swapctl -d $MAPPER/${P}a
	atf_check dmctl remove ${P}a
}

atf_init_test_cases()
{
	for test in tables suspend stalled removal race flakey log_writes swap \
	    pressure; do
		atf_add_test_case $test
	done
}
