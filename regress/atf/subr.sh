# SPDX-License-Identifier: BSD-2-Clause
# Shell functions that the tests of dm(4) share; each test file reads this one.
#
# Components: tests ask for disks with dm_disk.  They are image files in the
# test's own directory behind vnd(4), unless spare disks are named, as block
# devices whose contents may be lost, by the variable DM_DISKS in the
# environment or dm.disks in the test suite's configuration:
#
#	DM_DISKS="/dev/ld2d /dev/ld3d" atf-run
#	kyua -v test_suites.dm.dm.disks="/dev/ld2d /dev/ld3d" test
#
# A test notes the things that it sets up in files in its directory, and
# dm_cleanup takes them down.  Names of devices begin with $P, so that a machine's own logical
# volumes are left alone.

P=atfdm
MAPPER=/dev/mapper
H=$(atf_get_srcdir)/h_dm

# The properties that all tests have.
dm_head()
{
	atf_set "descr" "$1"
	atf_set "require.user" "root"
	atf_set "require.progs" "dmctl vnconfig"
	atf_set "timeout" "${2:-300}"
}

# Declares a test case that has these parts:
#	NAME_body	what is tested
#	NAME_descr	one line that says it
dm_test_case()
{
	atf_test_case "$1" cleanup
	eval "${1}_head() { dm_head \"\${${1}_descr}\" \"\${${1}_timeout}\"; }"
	eval "${1}_cleanup() { dm_cleanup; }"
}

# Skips the test where there is no dm(4).
dm_need()
{
	[ -c $MAPPER/control ] || dm_mknod $MAPPER/control c 0
	dmctl version >/dev/null 2>&1 || atf_skip "no dm(4) in this kernel"
}

# dm_need_target name: skips the test where there is no such target.
dm_need_target()
{
	dm_need
	$H ioctl command=targets | grep -q "\.name=$1\$" ||
	    atf_skip "there is no target $1 here"
}

# dm_swap_on line [line]: swaps on a device with such a table,
# which is exchanged meanwhile if there is a second one.
dm_swap_on()
{
	dm_make ${P}a "0 16384 $1"
	echo $MAPPER/${P}a >dm.swaps
	atf_check -o ignore -e ignore swapctl -a $MAPPER/${P}a
	atf_check -o match:"${P}a +16[0-9]* " swapctl -l
	dm_refuse EBUSY ioctl command=remove name=${P}a
	if [ -n "$2" ]; then
		dm_load ${P}a "0 16384 $2"
		atf_check dmctl resume ${P}a
	fi
	atf_check swapctl -d $MAPPER/${P}a
	atf_check dmctl remove ${P}a
}

# dm_major b|c: the driver's major number, from the list of drivers.
dm_major()
{
	sysctl -n kern.drivers | tr '{}[]' '\n\n\n\n' | awk -v kind="$1" '
	    $3 == "dm" { print (kind == "c" ? $1 : $2) }' | head -n 1
}

# dm_mknod path b|c minor
dm_mknod()
{
	local major=$(dm_major $2)
	[ -n "$major" ] || atf_skip "no dm(4) in kern.drivers"
	mkdir -p $(dirname $1)
	rm -f $1
	mknod $1 $2 $major $3 || atf_fail "mknod $1"
	echo $1 >>dm.nodes
}

dm_raw_letter()
{
	echo abcdefghijklmnop | cut -c $(($(sysctl -n kern.rawpartition) + 1))
}

# dm_disk number [sectors]: has a disk of at least that many sectors (default
# 20000) at hand; its block device is $DISKn and its character device $RDISKn.
dm_disk()
{
	local sectors=${2:-20000} named unit dev
	named=$(atf_config_get dm.disks "${DM_DISKS:-}" | awk -v n=$1 '{ print $n }')
	if [ -n "$named" ]; then
		dev=$named
		# What an earlier test left, label and all, is not this test's.
		dd if=/dev/zero of=$(dm_raw $dev) bs=64k count=40 2>/dev/null
	else
		dd if=/dev/zero of=disk$1 bs=512 seek=$((sectors - 1)) count=1 \
		    2>/dev/null || atf_fail "disk$1"
		unit=0
		until vnconfig -c vnd$unit $(pwd)/disk$1 2>vnd.err; do
			unit=$((unit + 1))
			[ $unit -lt 16 ] || atf_skip "no free vnd(4): $(cat vnd.err)"
		done
		echo vnd$unit >>dm.vnds
		dev=/dev/vnd$unit$(dm_raw_letter)
	fi
	eval DISK$1=$dev RDISK$1=$(dm_raw $dev)
}

# The character device of a disk's block device.
dm_raw()
{
	echo "$(dirname $1)/r$(basename $1)"
}

# dm_get key: picks a value out of h_dm's output.
dm_get()
{
	sed -n "s|^$1=||p"
}

# dm_nodes name: makes a device's nodes, as lvm(8) does.
dm_nodes()
{
	local minor=$($H ioctl command=info name=$1 | dm_get minor)
	[ -n "$minor" ] || atf_fail "no device $1"
	dm_mknod $MAPPER/$1 b $minor
	dm_mknod $MAPPER/r$1 c $minor
}

# dm_load name line ...: loads a table, with dmctl(8).
dm_load()
{
	local name=$1 line
	shift
	for line; do echo "$line"; done >table
	dmctl reload $name <table >err 2>&1 || atf_fail "reload $name: $(cat err)"
}

# dm_make name line ...: a device with a table, and its nodes.
dm_make()
{
	local name=$1
	shift
	dmctl create $name >err 2>&1 || atf_fail "create $name: $(cat err)"
	dm_load $name "$@"
	dmctl resume $name >err 2>&1 || atf_fail "resume $name: $(cat err)"
	dm_nodes $name
}

# dm_refuse ERRNO h_dm-arguments ...: h_dm must fail so.
dm_refuse()
{
	local errno=$1
	shift
	atf_check -s exit:1 -o "inline:$errno\n" $H "$@"
}

# dm_moves bytes h_dm-arguments ...: a read or write must move so many.
dm_moves()
{
	local bytes=$1
	shift
	atf_check -o "inline:$bytes\n" $H "$@"
}

# dm_expect wanted got what
dm_expect()
{
	[ "$1" = "$2" ] || atf_fail "$3: expected '$1', got '$2'"
}

# The table of a device as lines that load again.
dm_table()
{
	$H ioctl command=table name=$1 flags:0x10 | awk -F '[.=]' '
	    $1 == "cmd_data" {
		value = substr($0, index($0, "=") + 1)
		line[$2, $3] = value
		if ($2 + 1 > lines) lines = $2 + 1
	    }
	    END {
		for (i = 0; i < lines; i++) {
			text = line[i, "start"] " " line[i, "length"] " " \
			    line[i, "type"]
			print text (line[i, "params"] == "" ? "" : \
			    " " line[i, "params"])
		}
	    }' | while read start length rest; do
		echo "$((start)) $((length)) $rest"
	done
}

# dm_start job command ...: runs it beside the test.  Its output goes to job.out.
# The status is kept in a file, since not every sh(1) knows it of a job that was
# over before it was waited for.  With `if' a failure does not end the job before
# that where atf-sh(1) has set -e.
dm_start()
{
	local job=$1
	shift
	rm -f $job.status
	(if "$@" >$job.out 2>&1; then status=0; else status=$?; fi
	    echo $status >$job.status) &
	echo $! >$job.pid
}

# dm_start_child job command ...: as dm_start, for one program, whose own pid is in
# job.child.
dm_start_child()
{
	local job=$1
	shift
	rm -f $job.child
	dm_start $job sh -c 'echo $$ >"$0.child.new"; mv "$0.child.new" "$0.child"
	    exec "$@"' $job "$@"
	until [ -f $job.child ]; do sleep 1; done
}

# dm_delayed name: waits until an I/O is delayed there.
dm_delayed()
{
	until $H ioctl command=status name=$1 flags:0 | grep -q "params=.*[1-9]"; do
		sleep 1
	done
}

# dm_join job: waits for it; it must have succeeded.
dm_join()
{
	dm_over $1
	[ "$(cat $1.status)" = 0 ] || atf_fail "$1: $(cat $1.out)"
}

# dm_over job: waits for it, however it ended.
dm_over()
{
	wait $(cat $1.pid)
	rm -f $1.pid
	[ -f $1.status ] || atf_fail "$1 was killed"
}

# dm_kill pid: ends a job, and what it runs.
dm_kill()
{
	local child
	for child in $(ps -ax -o ppid -o pid | awk -v p=$1 '$1 == p { print $2 }')
	do
		dm_kill $child
	done
	kill $1 2>/dev/null
}

# dm_use_until_stop n: I/O on device sN, which comes and goes: it may fail in any way
# but one.  It ends when there is a file stop.
dm_use_until_stop()
{
	while [ ! -f stop ]; do
		$H ioctl command=create name=${P}s$1 flags:8 \
		    minor:$((101 + $1))
		$H read $MAPPER/r${P}s$1 0 65536
		$H write $MAPPER/r${P}s$1 65536 65536
		$H sync $MAPPER/r${P}s$1
	done >/dev/null
}

# dm_files_until_stop: writes files in mnt and compares them.
dm_files_until_stop()
{
	local n=0
	while [ ! -f stop ]; do
		cp data mnt/load$((n % 4)) && cmp data mnt/load$((n % 4)) ||
		    return 1
		n=$((n + 1))
	done
}

# dm_race rounds line seed: create, reload, resume, I/O and remove of devices s0 to s2
# from all sides.
dm_race()
{
	local n status
	dm_mknod $MAPPER/r${P}s0 c 101
	dm_mknod $MAPPER/r${P}s1 c 102
	for n in 0 1; do
		dm_start io$n dm_use_until_stop $n
	done
	$H storm ${P}s 3 $1 "$2" $3 >storm.out
	status=$?
	# A device that was left suspended holds I/O.
	touch stop
	for n in 0 1 2; do dmctl resume ${P}s$n >/dev/null 2>&1; done
	dm_over io0
	dm_over io1
	dm_expect 0 $status "storm: $(cat storm.out)"
}

# dm_pattern file sectors: writes a file in which each sector has its number.
dm_pattern()
{
	awk -v n=$2 'BEGIN { for (i = 0; i < n; i++) printf "sector %-504d\n", i }' >$1
}

# dm_from device skip count: so many sectors of a device.
dm_from()
{
	dd if=$1 bs=512 skip=$2 count=$3 2>/dev/null
}

# dm_same what file1 file2
dm_same()
{
	cmp $2 $3 >cmp.out 2>&1 || atf_fail "$1: $(cat cmp.out)"
}

# dm_newfs character-device
dm_newfs()
{
	newfs -I $1 >newfs.out 2>&1 || atf_fail "newfs $1: $(cat newfs.out)"
}

# dm_mount node directory
dm_mount()
{
	mkdir -p $2
	mount $1 $(pwd)/$2 || atf_fail "mount $1"
	echo $(pwd)/$2 >>dm.mounts
}

# The tests' devices.
dm_own()
{
	dmctl ls 2>/dev/null | sed -n "s/^Device name: \($P[^,]*\),.*/\1/p"
}

# Takes down everything that the test set up, however the test has ended.
dm_cleanup()
{
	local job name round what
	# I/O that is under way keeps a device open, or is held by a suspend.
	for name in $(dm_own); do
		dmctl resume $name >/dev/null 2>&1
	done
	# Or by a target, which lets it go when it is to stop; all at once, since
	# they may wait for one another.
	for name in $(dm_own); do
		(dmctl suspend $name; dmctl resume $name) >/dev/null 2>&1 &
	done
	wait
	for job in *.pid; do
		[ ! -f $job ] || dm_kill $(cat $job)
	done
	[ ! -f dm.swaps ] || while read what; do
		swapctl -d $what 2>/dev/null
	done <dm.swaps
	[ ! -f dm.mounts ] || sort -r dm.mounts | while read what; do
		umount $what 2>/dev/null || umount -f $what 2>/dev/null
	done
	sysctl -w hw.dm.label_guard=1 hw.dm.legacy_errors=0 >/dev/null 2>&1
	[ ! -f dm.vgs ] || dm_lvm_cleanup
	# A device that another one uses goes when that one has gone.
	for round in 1 2 3 4; do
		for name in $(dm_own); do
			# Removing waits for I/O, and I/O for a suspended device.
			dmctl resume $name >/dev/null 2>&1
			dmctl remove $name >/dev/null 2>&1
		done
	done
	[ ! -f dm.nodes ] || grep -v /control dm.nodes | while read what; do
		rm -f $what
	done
	[ ! -f dm.vnds ] || while read what; do
		vnconfig -u $what 2>/dev/null || vnconfig -uf $what
	done <dm.vnds
	rm -f dm.swaps dm.mounts dm.nodes dm.vnds dm.vgs
	return 0
}
