# SPDX-License-Identifier: BSD-2-Clause
# Targets snapshot and snapshot-origin as LVM uses them: snapshots of a volume with
# a mounted file system that is written meanwhile.  And snapshot-merge, for which
# lvm(8) has no command, by tables.

. $(atf_get_srcdir)/subr.sh
. $(atf_get_srcdir)/lvm.sh

# status name: prints a snapshot's status.
status()
{
	$H ioctl command=status name=$VG-$1 flags:0 |
	    sed -n 's|^cmd_data\.[0-9]*\.params=||p'
}

# volume: a volume `one' with a mounted file system, with a file that stays and
# files that are written over and over until `settled'.
volume()
{
	lvm_run lvcreate -L 16m -n one $VG
	dm_newfs $(lv_char one)
	dm_mount $(lv_block one) mnt
	dm_pattern data 1500
	cp data mnt/data || atf_fail "cp"
	sync
	rm -f stop
	dm_start files dm_files_until_stop
}

# settled: the origin has what was written, and its file system is whole.
settled()
{
	touch stop
	dm_join files
	dm_same "the origin, mounted" data mnt/data
	umount $(pwd)/mnt || atf_fail "umount"
	fsck_ffs -fn $(lv_char one) >fsck.out 2>&1 ||
	    atf_fail "fsck: $(cat fsck.out)"
}

# same_twice name: a snapshot reads the same now and a while later.
same_twice()
{
	dd if=$(lv_char $1) of=first bs=64k 2>/dev/null || atf_fail "dd"
	sleep 5
	dd if=$(lv_char $1) of=second bs=64k 2>/dev/null || atf_fail "dd"
	cmp first second || atf_fail "snapshot $1 has changed"
	rm -f first second
}

# looked_at name: a snapshot's file system is in order, since it was synchronised
# before, and has the file that was there then.
looked_at()
{
	fsck_ffs -fn $(lv_char $1) >fsck.out 2>&1 ||
	    atf_fail "fsck of $1: $(cat fsck.out)"
	! grep -i 'wrong\|salvage\|inconsist\|unref\|missing' fsck.out ||
	    atf_fail "fsck of $1: $(cat fsck.out)"
	mkdir -p mnt2
	mount -o ro $(lv_block $1) $(pwd)/mnt2 || atf_fail "mount of $1"
	echo $(pwd)/mnt2 >>dm.mounts
	dm_same "snapshot $1" data mnt2/data
	umount $(pwd)/mnt2 || atf_fail "umount of $1"
}

moment_descr="a snapshot of a mounted file system under load keeps its moment"
moment_timeout=900
dm_test_case moment
moment_body()
{
	dm_need_target snapshot
	lvm_setup 2
	volume
	lvm_run lvcreate -s -L 24m -n snap $VG/one
	same_twice snap
	looked_at snap
	if command -v dump >/dev/null; then
		dump -0 -f dumped $(lv_char snap) >dump.out 2>&1 ||
		    atf_fail "dump: $(cat dump.out)"
		[ -s dumped ] || atf_fail "dump wrote nothing"
	fi
	if [ -s dumped ] && command -v restore >/dev/null; then
		mkdir back
		(cd back && restore -rf ../dumped) >restore.out 2>&1 ||
		    atf_fail "restore: $(cat restore.out)"
		dm_same "what was dumped" data back/data
	fi
	# A second one, of another moment.
	lvm_run lvcreate -s -c 64k -L 24m -n other $VG/one
	same_twice other
	looked_at other
	settled
	looked_at snap
	atf_check -o match:"[0-9]" -e ignore lvm lvs $VG/snap
	lvm_run lvremove -f $VG/snap
	lvm_run lvremove -f $VG/other
	dm_mount $(lv_block one) mnt
	dm_same "the origin, without snapshots" data mnt/data
	atf_check umount $(pwd)/mnt
}

grows_descr="a snapshot grows while it is used, and outlives its volume group's rest"
grows_timeout=900
dm_test_case grows
grows_body()
{
	dm_need_target snapshot
	lvm_setup 2
	volume
	lvm_run lvcreate -s -L 12m -n snap $VG/one
	lvm_run lvextend -L 24m $VG/snap
	same_twice snap
	looked_at snap
	settled
	lvm_run vgchange -an $VG
	lvm_run vgchange -ay $VG
	looked_at snap
	dm_mount $(lv_block one) mnt
	dm_same "the origin, active again" data mnt/data
	atf_check umount $(pwd)/mnt
}

full_descr="a snapshot that is full is lost, and its origin goes on"
full_timeout=900
dm_test_case full
full_body()
{
	dm_need_target snapshot
	lvm_setup 2
	volume
	lvm_run lvcreate -s -L 4m -n snap $VG/one
	dd if=/dev/zero of=mnt/more bs=64k count=80 2>/dev/null || atf_fail "dd"
	local n=0
	while [ "$(status snap)" != Invalid ]; do
		n=$((n + 1))
		[ $n -lt 120 ] || atf_fail "never full: $(status snap)"
		sleep 1
	done
	atf_check -s not-exit:0 -o ignore -e ignore \
	    dd if=$(lv_char snap) of=/dev/null bs=64k count=1
	settled
	lvm_run lvremove -f $VG/snap
	dm_mount $(lv_block one) mnt
	dm_same "the origin" data mnt/data
	atf_check umount $(pwd)/mnt
}

renamed_descr="an origin is renamed while it is used, a snapshot while it is not active"
renamed_timeout=900
dm_test_case renamed
renamed_body()
{
	dm_need_target snapshot
	lvm_setup 2
	volume
	lvm_run lvcreate -s -L 24m -n snap $VG/one
	lvm_run lvrename $VG one first
	same_twice snap
	looked_at snap
	touch stop
	dm_join files
	dm_same "the origin, mounted" data mnt/data
	atf_check umount $(pwd)/mnt
	lvm_run vgchange -an $VG
	# lvm(8) cannot do it while the snapshot is active: dm(4), BUGS.
	lvm_run lvrename $VG snap moment
	lvm_run vgchange -ay $VG
	atf_check -o "inline:first\nmoment\n" -x \
	    "dmctl ls | sed -n 's/^Device name: $VG-\([a-z]*\),.*/\1/p' | sort"
	looked_at moment
	fsck_ffs -fn $(lv_char first) >fsck.out 2>&1 ||
	    atf_fail "fsck: $(cat fsck.out)"
	dm_mount $(lv_block first) mnt
	dm_same "the origin, renamed" data mnt/data
	atf_check umount $(pwd)/mnt
}

# used: the sectors of its store that the merging device has in use, and those of them
# that are not for chunks.  Both are equal when all is merged.
used()
{
	$H ioctl command=status name=${P}o flags:0 |
	    sed -n 's|^cmd_data\.0\.params=\([0-9]*\)/[0-9]* \([0-9]*\)$|\1 \2|p'
}

# is_merged
is_merged()
{
	local now="$(used)"
	[ -n "$now" ] || atf_fail "merging: $($H ioctl command=status \
	    name=${P}o flags:0)"
	[ ${now% *} = ${now#* } ]
}

# merged_files: the files are those of the snapshot, and none that came to the origin later.
merged_files()
{
	local n
	dm_same "$1, what did not change" data mnt/data
	dm_same "$1, what the origin had overwritten" data mnt/lost
	dm_same "$1, what was written to the snapshot" other mnt/snap
	for n in 0 1 2 3; do
		[ ! -f mnt/late$n ] || atf_fail "$1: a file of the origin's"
	done
}

# delay_writes milliseconds: delays writes of the merging device's origin.
delay_writes()
{
	dm_load ${P}real "0 18000 delay $DISK1 1000 0 $DISK1 1000 $1"
	atf_check dmctl resume ${P}real
}

merge_descr="a snapshot becomes its origin, with a file system in use, stopped half way"
merge_timeout=900
dm_test_case merge
merge_body()
{
	dm_need_target snapshot-merge
	dm_need_target delay
	local merge="snapshot-merge $MAPPER/${P}real $MAPPER/${P}cow P 16"
	local n
	dm_disk 1
	dm_disk 2
	dm_make ${P}real "0 18000 linear $DISK1 1000"
	dm_make ${P}cow "0 18000 linear $DISK2 1000"
	dm_make ${P}o "0 18000 snapshot-origin $MAPPER/${P}real"
	dm_newfs $MAPPER/r${P}o
	dm_mount $MAPPER/${P}o mnt
	dm_pattern data 1500
	dm_pattern other 1700
	cp data mnt/data && cp data mnt/lost || atf_fail "cp"
	sync
	# The moment: the file system is clean while its device is suspended.
	atf_check dmctl suspend ${P}o
	dm_make ${P}s "0 18000 snapshot $MAPPER/${P}real $MAPPER/${P}cow P 16"
	atf_check dmctl resume ${P}o
	# An upgrade that goes wrong.
	cp other mnt/lost || atf_fail "cp"
	for n in 0 1 2 3; do
		cp other mnt/late$n || atf_fail "cp"
	done
	umount $(pwd)/mnt || atf_fail "umount"
	# The snapshot is written, too.
	dm_mount $MAPPER/${P}s mnt2
	cp other mnt2/snap || atf_fail "cp"
	umount $(pwd)/mnt2 || atf_fail "umount of the snapshot"
	dd if=$MAPPER/r${P}s of=snapshot bs=64k 2>/dev/null || atf_fail "dd"

	dm_load ${P}o "0 18000 $merge"
	dm_load ${P}s "0 18000 error"
	# Not beside the snapshot.
	dm_refuse EINVAL ioctl command=resume name=${P}o
	# So that it does not come to its end before it is to be stopped: it is
	# more than one run of 4 MiB, which is written in eight parts.
	delay_writes 20000
	atf_check dmctl suspend ${P}s
	atf_check dmctl suspend ${P}o
	atf_check dmctl resume ${P}o
	atf_check dmctl resume ${P}s
	atf_check dmctl remove ${P}s
	dd if=$MAPPER/r${P}o of=merging bs=64k 2>/dev/null || atf_fail "dd"
	dm_same "the device, as the snapshot was" snapshot merging
	rm snapshot merging
	mount -o ro $MAPPER/${P}o $(pwd)/mnt || atf_fail "mount"
	echo $(pwd)/mnt >>dm.mounts
	merged_files "mounted while it is merged"
	umount $(pwd)/mnt || atf_fail "umount"
	local first="$(used)"
	delay_writes 2000
	until [ "$(used)" != "$first" ]; do sleep 1; done
	if is_merged; then
		atf_fail "merged before it was to be stopped"
	fi
	# Gone with its memory, as after a crash: the store says what is left.
	atf_check dmctl remove ${P}o
	atf_check dmctl remove ${P}cow
	atf_check dmctl remove ${P}real
	dm_make ${P}real "0 18000 linear $DISK1 1000"
	dm_make ${P}cow "0 18000 linear $DISK2 1000"
	dm_make ${P}o "0 18000 $merge"
	dm_mount $MAPPER/${P}o mnt
	merged_files "mounted again"
	rm mnt/lost
	cp other mnt/new && cp data mnt/lost || atf_fail "cp"
	until is_merged; do sleep 1; done
	merged_files "mounted and merged"
	umount $(pwd)/mnt || atf_fail "umount"
	# The store is not needed any more.
	dm_load ${P}o "0 18000 snapshot-origin $MAPPER/${P}real"
	atf_check dmctl resume ${P}o
	atf_check dmctl remove ${P}cow
	fsck_ffs -fn $MAPPER/r${P}o >fsck.out 2>&1 ||
	    atf_fail "fsck: $(cat fsck.out)"
	! grep -i 'wrong\|salvage\|inconsist\|unref\|missing' fsck.out ||
	    atf_fail "fsck: $(cat fsck.out)"
	dm_mount $MAPPER/${P}o mnt
	merged_files "the origin"
	dm_same "written while it was merged" other mnt/new
	atf_check umount $(pwd)/mnt
}

atf_init_test_cases()
{
	atf_add_test_case moment
	atf_add_test_case grows
	atf_add_test_case full
	atf_add_test_case renamed
	atf_add_test_case merge
}
