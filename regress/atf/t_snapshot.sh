# SPDX-License-Identifier: BSD-2-Clause
# Targets snapshot and snapshot-origin as LVM uses them: snapshots of a volume with
# a mounted file system that is written meanwhile.

. $(atf_get_srcdir)/subr.sh
. $(atf_get_srcdir)/lvm.sh

# status name: a snapshot's.
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

atf_init_test_cases()
{
	atf_add_test_case moment
	atf_add_test_case grows
	atf_add_test_case full
	atf_add_test_case renamed
}
