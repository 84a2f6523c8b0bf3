# SPDX-License-Identifier: BSD-2-Clause
# Commands under I/O: reload, suspend, removal, and the C driver's panics.

. $(atf_get_srcdir)/subr.sh

reload_descr="tables change under I/O, and no sector goes astray"
dm_test_case reload
reload_timeout=900
reload_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 2000 linear $DISK1 5000"
	dm_start verify $H verify $MAPPER/r${P}a 2000 1500 6
	# The same sectors, told in two ways, by two at the same time.
	dm_start churn $H churn ${P}a 150 "0 2000 linear $DISK1 5000" \
	    "0 2000 striped 1 100 $DISK1 5000"
	atf_check $H churn ${P}a 150 "0 2000 striped 1 8 $DISK1 5000" \
	    "0 2000 linear $DISK1 5000"
	dm_join churn
	dm_join verify
}

read_until_stop()
{
	while [ ! -f stop ]; do
		$H read $MAPPER/r${P}a 0 65536 || return 1
	done
}

components_descr="the component changes under I/O, and the old one is let go"
dm_test_case components
components_timeout=900
components_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	dm_make ${P}a "0 2000 linear $DISK1 5000"
	dm_start reader read_until_stop
	$H churn ${P}a 200 "0 2000 linear $DISK2 5000" \
	    "0 2000 linear $DISK1 5000" "0 2000 zero" >churn.out
	status=$?
	touch stop
	dm_join reader
	dm_expect 0 $status "churn: $(cat churn.out)"
	dm_load ${P}a "0 2000 zero"
	atf_check dmctl resume ${P}a
	dm_expect 0 $(dmctl deps ${P}a | grep -c major) "components"
}

suspend_descr="suspend holds I/O, and resume lets it go"
dm_test_case suspend
suspend_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	dm_make ${P}a "0 2000 linear $DISK1 5000"
	atf_check dmctl suspend ${P}a
	dm_start writer $H write $MAPPER/r${P}a 0 512 0x77
	# The write is held, however long one waits: what it is to find when it
	# goes on is the table of then.
	dm_load ${P}a "0 2000 linear $DISK2 6000"
	[ ! -f writer.status ] || atf_fail "a suspended device did I/O"
	atf_check dmctl resume ${P}a
	dm_join writer
	dm_moves 512 read $RDISK2 $((6000 * 512)) 512 0x77
	dm_moves 512 read $RDISK1 $((5000 * 512)) 512 0
	# Twice is once, and a device without a table can be suspended too.
	for i in 1 2; do atf_check dmctl suspend ${P}a; done
	for i in 1 2; do atf_check dmctl resume ${P}a; done
	atf_check dmctl create ${P}b
	atf_check dmctl suspend ${P}b
	atf_check dmctl remove ${P}b
}

suspend_load_descr="suspend and resume under load"
dm_test_case suspend_load
suspend_load_timeout=900
suspend_load_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 1000 linear $DISK1 5000" "1000 1000 linear $DISK1 7000"
	dm_start verify $H verify $MAPPER/r${P}a 2000 800 7
	i=0
	while [ $i -lt 40 ]; do
		dmctl suspend ${P}a || atf_fail suspend
		dmctl resume ${P}a || atf_fail resume
		i=$((i + 1))
	done
	dm_join verify
}

remove_open_descr="a device that is open, mounted or suspended and its removal"
dm_test_case remove_open
remove_open_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 8000 linear $DISK1 5000"
	dm_refuse EBUSY open $MAPPER/${P}a r $H ioctl command=remove name=${P}a
	dm_refuse EBUSY open $MAPPER/r${P}a w $H ioctl command=remove name=${P}a
	dm_expect 1 $(($($H open $MAPPER/r${P}a r $H ioctl command=info \
	    name=${P}a | dm_get open_count))) open_count
	dm_newfs $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_refuse EBUSY ioctl command=remove name=${P}a
	atf_check -o ignore $H ioctl command=remove_all
	cp $(atf_get_srcdir)/h_dm mnt/file || atf_fail "cp"
	atf_check umount $(pwd)/mnt
	dm_mount $MAPPER/${P}a mnt
	dm_same "a file that outlived the refused removal" \
	    $(atf_get_srcdir)/h_dm mnt/file
	atf_check umount $(pwd)/mnt
	# Gone, with the name and the minor free again.
	atf_check dmctl suspend ${P}a
	atf_check dmctl remove ${P}a
	dm_refuse ENXIO open $MAPPER/${P}a r
	atf_check dmctl create ${P}a
}

race_descr="create, reload, resume, I/O and remove of one name from all sides"
dm_test_case race
race_timeout=900
race_body()
{
	dm_need
	dm_disk 1
	dm_race 400 "0 1000 linear $DISK1 5000" 8
}

write_until_stop()
{
	local n=0
	while [ ! -f stop ]; do
		n=$((n + 1))
		dd if=/dev/zero of=mnt/f$((n % 20)) bs=3k count=$((n % 50 + 1)) || return 1
		mkdir -p mnt/d$((n % 7))/e && mv mnt/f$((n % 20)) mnt/d$((n % 7))/e || return 1
		[ $((n % 5)) -ne 0 ] || rm -r mnt/d$((n / 5 % 7)) || return 1
	done
}

clean_descr="what lies below a suspended device is a file system in order"
dm_test_case clean
clean_timeout=3600
clean_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 14000 linear $DISK1 5000"
	# The same sectors, of which fsck(8) gets a copy: it calls sync(2) and so waits
	# for what the suspended device holds.  A file is quicker than a second vnd(4).
	dm_make ${P}b "0 14000 linear $DISK1 5000"
	for log in "" "-o log"; do
		dm_newfs $MAPPER/r${P}a
		dm_mount "$log $MAPPER/${P}a" mnt
		rm -f stop
		dm_start writer write_until_stop
		round=0
		while [ $round -lt 100 ]; do
			round=$((round + 1))
			atf_check dmctl suspend ${P}a
			dd if=$MAPPER/r${P}b of=below bs=64k 2>dd.err ||
			    atf_fail "dd: $(cat dd.err)"
			atf_check dmctl resume ${P}a
			fsck_ffs -n -f -F below >fsck.out 2>&1 ||
			    atf_fail "fsck $log, $round: $(cat fsck.out)"
			! grep -i 'wrong\|salvage\|inconsist\|unref\|missing' fsck.out ||
			    atf_fail "fsck $log, $round: $(cat fsck.out)"
		done
		touch stop
		dm_join writer
		cat fsck.out
		atf_check umount $(pwd)/mnt
	done
}

atf_init_test_cases()
{
	for test in reload components suspend suspend_load remove_open race clean; do
		atf_add_test_case $test
	done
}
