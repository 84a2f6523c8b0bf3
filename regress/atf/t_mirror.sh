# SPDX-License-Identifier: BSD-2-Clause
# Target mirror as LVM uses it: mirrored volumes, and volumes that move from one
# disk to another while they are mounted.  Each ends with fsck and a comparison of
# all that was written.

. $(atf_get_srcdir)/subr.sh
. $(atf_get_srcdir)/lvm.sh

# table_has name pattern
table_has()
{
	dm_table $VG-$1 | grep -q "$2" ||
	    atf_fail "the table of $1: $(dm_table $VG-$1)"
}

# regions name: IN-SYNC/TOTAL in the status of a device's first mirror.
regions()
{
	$H ioctl command=status name=$VG-$1 flags:0 | sed -n \
	    's|^cmd_data\.[0-9]*\.params=[0-9][0-9 :]* \([0-9]*/[0-9]*\) .*|\1|p' |
	    head -n 1
}

# in_sync name: waits until all of a volume's regions are.
in_sync()
{
	local now
	while now=$(regions $1); do
		[ -n "$now" ] || atf_fail "$1 is no mirror"
		[ ${now%/*} != ${now#*/} ] || return 0
		sleep 1
	done
}

# same_legs name: both legs of a mirror hold the same.
same_legs()
{
	local leg
	for leg in 0 1; do
		dd if=$(lv_char $1_mimage_$leg) of=leg$leg bs=64k 2>/dev/null ||
		    atf_fail "leg $leg of $1"
	done
	dm_same "the legs of $1" leg0 leg1
}

# volume name: makes a file system on it, mounted, with files of which more are
# written in the background until `settled'.
volume()
{
	dm_newfs $(lv_char $1)
	dm_mount $(lv_block $1) mnt
	dm_pattern data 1500
	cp data mnt/data || atf_fail "cp"
	rm -f stop
	dm_start files dm_files_until_stop
}

# settled name: what was written is there, and the file system is whole.  It is
# not mounted then.
settled()
{
	touch stop
	dm_join files
	dm_same "$1, mounted" data mnt/data
	checked $1
}

# checked name: as settled, for a volume to which nothing is being written.
checked()
{
	umount $(pwd)/mnt || atf_fail "umount"
	fsck_ffs -fn $(lv_char $1) >fsck.out 2>&1 ||
	    atf_fail "fsck: $(cat fsck.out)"
	dm_mount $(lv_block $1) mnt
	dm_same "$1, mounted anew" data mnt/data
	umount $(pwd)/mnt || atf_fail "umount"
}

# lies_on name character-device: all of a volume is there.
lies_on()
{
	lvm lvs --noheadings -o devices $VG/$1 >lvs.out 2>&1 ||
	    atf_fail "lvs: $(cat lvs.out)"
	! grep "(" lvs.out | grep -v "$2(" >/dev/null ||
	    atf_fail "$1 does not lie on $2: $(cat lvs.out)"
}

core_descr="a mirror with its log in memory: lvcreate -m1 --corelog"
core_timeout=900
dm_test_case core
core_body()
{
	dm_need_target mirror
	lvm_setup 2
	lvm_run lvcreate -m1 --corelog -L 12m -n one $VG
	table_has one " mirror core [12] "
	# Written while it is still being copied.
	volume one
	in_sync one
	atf_check -o match:"100.00" -e ignore lvm lvs $VG/one
	settled one
	same_legs one
	# Another time, from the start.
	lvm_run vgchange -an $VG
	lvm_run vgchange -ay $VG
	in_sync one
	dm_mount $(lv_block one) mnt
	checked one
	same_legs one
	lvm_run lvremove -f $VG/one
	atf_check -o not-match:"$VG" dmctl ls
}

# The log header of a mirror is written to the volume's block node by lvm(8) of
# NetBSD 7 and others, which knows character nodes only.
need_disk_log()
{
	lvm lvcreate -m1 -L 12m -n one $VG $RDISK1 $RDISK2 $RDISK3 >lvm.out 2>&1 ||
	    ! grep -q "log header not written" lvm.out ||
	    atf_skip "this lvm(8) finds no mirror log: $(tail -n 1 lvm.out)"
	[ -c $(lv_char one) ] || atf_fail "lvcreate -m1: $(cat lvm.out)"
}

disk_log_descr="a mirror with its log on a disk: lvcreate -m1"
disk_log_timeout=900
dm_test_case disk_log
disk_log_body()
{
	dm_need_target mirror
	lvm_setup 3
	need_disk_log
	table_has one " mirror disk [23] "
	volume one
	in_sync one
	settled one
	same_legs one
	# The log says that nothing need be copied.
	lvm_run vgchange -an $VG
	lvm_run vgchange -ay $VG
	now=$(regions one)
	dm_expect "${now#*/}" "${now%/*}" "regions in sync after a clean end"
	dm_mount $(lv_block one) mnt
	checked one
	# Larger: only what is new is copied.
	lvm_run lvextend -L 24m $VG/one
	in_sync one
	atf_check -o ignore -e ignore resize_ffs -y $(lv_char one)
	dm_mount $(lv_block one) mnt
	checked one
	same_legs one
	lvm_run lvconvert -m0 $VG/one $RDISK1
	lies_on one $RDISK2
	dm_mount $(lv_block one) mnt
	checked one
}

nosync_descr="a mirror that is taken as it is: lvcreate -m1 --nosync"
nosync_timeout=900
dm_test_case nosync
nosync_body()
{
	dm_need_target mirror
	lvm_setup 2
	lvm_run lvcreate -m1 --corelog --nosync -L 12m -n one $VG
	table_has one " nosync "
	now=$(regions one)
	dm_expect "${now#*/}" "${now%/*}" "regions in sync"
	volume one
	settled one
	# What was written is the same on both.
	lvm_run lvconvert -m0 $VG/one $RDISK1
	lies_on one $RDISK2
	dm_mount $(lv_block one) mnt
	checked one
}

convert_descr="a mounted volume becomes a mirror and is none again: lvconvert"
convert_timeout=900
dm_test_case convert
convert_body()
{
	dm_need_target mirror
	lvm_setup 2
	lvm_run lvcreate -L 12m -n one $VG $RDISK1
	volume one
	lvm_run lvconvert -m1 --corelog -i1 $VG/one
	in_sync one
	dm_same "as a mirror" data mnt/data
	lvm_run lvconvert -m0 $VG/one
	lies_on one $RDISK1
	# And over to the other disk.
	lvm_run lvconvert -m1 --corelog -i1 $VG/one
	lvm_run lvconvert -m0 $VG/one $RDISK1
	lies_on one $RDISK2
	settled one
}

extend_descr="a mirror grows while it is mounted: lvextend"
extend_timeout=900
dm_test_case extend
extend_body()
{
	dm_need_target mirror
	lvm_setup 2
	lvm_run lvcreate -m1 --corelog -L 12m -n one $VG
	volume one
	in_sync one
	lvm_run lvextend -L 24m $VG/one
	in_sync one
	settled one
	atf_check -o ignore -e ignore resize_ffs -y $(lv_char one)
	atf_check -o ignore fsck_ffs -fy $(lv_char one)
	dm_mount $(lv_block one) mnt
	dm_pattern large 25000
	cp large mnt/large || atf_fail "cp large"
	dm_same "on the new part" large mnt/large
	checked one
	same_legs one
}

missing_descr="a mirror lives on when a disk is gone: vgreduce --removemissing"
missing_timeout=900
dm_test_case missing
missing_body()
{
	dm_need_target mirror
	lvm_setup 2
	vnd=$(sed -n 1p dm.vnds 2>/dev/null)
	[ -n "$vnd" ] || atf_skip "only a vnd(4) can be taken away"
	lvm_run lvcreate -m1 --corelog -L 12m -n one $VG
	volume one
	in_sync one
	settled one
	lvm_run vgchange -an $VG
	# The first leg's.
	atf_check vnconfig -u $vnd
	lvm vgreduce --removemissing --force $VG >lvm.out 2>&1 ||
	    atf_fail "vgreduce: $(cat lvm.out)"
	lvm_run vgchange -ay $VG
	lies_on one $RDISK2
	dm_mount $(lv_block one) mnt
	checked one
}

# failing leg: a mirror of which one leg fails under a mounted file system.
failing()
{
	dm_need_target mirror
	dm_disk 1 131072
	dm_disk 2 131072
	for n in 1 2; do
		eval dm_make ${P}p$n \"0 100000 linear \$DISK$n 0\"
	done
	lvm_on $MAPPER/r${P}p1 $MAPPER/r${P}p2
	lvm_run lvcreate -m1 --corelog -L 12m -n one $VG
	volume one
	in_sync one
	event=$(($($H ioctl command=info name=$VG-one | dm_get event_nr)))
	dm_load ${P}p$1 "0 100000 error"
	atf_check dmctl resume ${P}p$1
	# Writes wait for whoever looks after the mirror.
	until [ $(($($H ioctl command=info name=$VG-one |
	    dm_get event_nr))) -gt $event ]; do
		sleep 1
	done
	atf_check -o match:"[DSRFU]" $H ioctl command=status name=$VG-one flags:0
	lvm vgreduce --removemissing --force $VG >lvm.out 2>&1 ||
	    atf_fail "vgreduce: $(cat lvm.out)"
	lies_on one $MAPPER/r${P}p$((3 - $1))
	settled one
}

failing_first_descr="the first leg fails under a mounted file system"
failing_first_timeout=900
dm_test_case failing_first
failing_first_body()
{
	failing 1
}

failing_second_descr="the second leg fails under a mounted file system"
failing_second_timeout=900
dm_test_case failing_second
failing_second_body()
{
	failing 2
}

# two_volumes: on the first of two disks, of which the second is slow; the larger
# is mounted and written to.
two_volumes()
{
	dm_need_target mirror
	dm_disk 1 131072
	dm_disk 2 131072
	dm_make ${P}p2 "0 100000 delay $DISK2 0 0 $DISK2 0 ${1:-0}"
	slow=$MAPPER/r${P}p2
	lvm_on $RDISK1 $slow
	lvm_run lvcreate -L 12m -n one $VG $RDISK1
	lvm_run lvcreate -L 4m -n two $VG $RDISK1
	atf_check $H verify $(lv_char two) 8192 50 11
	dd if=$(lv_char two) of=two bs=64k 2>/dev/null
	volume one
}

# settled_on character-device: both volumes lie there, as they were.
settled_on()
{
	lies_on one $1
	lies_on two $1
	settled one
	dd if=$(lv_char two) of=two.now bs=64k 2>/dev/null
	dm_same "the other volume" two two.now
	atf_check -o not-match:"pvmove" dmctl ls
}

pvmove_descr="pvmove of a mounted volume under load"
pvmove_timeout=900
dm_test_case pvmove
pvmove_body()
{
	two_volumes
	lvm_run pvmove -i1 $RDISK1 $slow
	settled_on $slow
	# And back, one volume alone, then the other.
	volume one
	lvm_run pvmove -i1 -n one $slow $RDISK1
	lies_on one $RDISK1
	lies_on two $slow
	lvm_run pvmove -i1 $slow $RDISK1
	settled_on $RDISK1
}

# pvmove_begun: pvmove has set all up, and is killed before it looks again.
pvmove_begun()
{
	two_volumes 100
	dm_start_child pvmove lvm pvmove -i 3000 $RDISK1 $slow
	until ps -p $(cat pvmove.child) -o wchan | grep -q nanosl; do
		[ ! -f pvmove.status ] || atf_fail "pvmove: $(cat pvmove.out)"
		sleep 1
	done
	kill -9 $(cat pvmove.child)
	dm_over pvmove
	[ -n "$(regions pvmove0)" ] || atf_fail "pvmove0 is no mirror"
}

pvmove_again_descr="pvmove that was killed is taken up again, mounted"
pvmove_again_timeout=900
dm_test_case pvmove_again
pvmove_again_body()
{
	pvmove_begun
	lvm_run pvmove -i1 $RDISK1
	settled_on $slow
}

pvmove_boot_descr="pvmove that a halt interrupted is taken up when all is active again"
pvmove_boot_timeout=900
dm_test_case pvmove_boot
pvmove_boot_body()
{
	pvmove_begun
	settled one
	lvm_run vgchange -an $VG
	atf_check -o not-match:"$VG" dmctl ls
	# This takes the moving up again, in the background.
	lvm_run vgchange -ay $VG
	dm_mount $(lv_block one) mnt
	rm -f stop
	dm_start files dm_files_until_stop
	lvm_run pvmove -i1
	while dmctl ls | grep -q pvmove; do sleep 1; done
	settled_on $slow
}

pvmove_abort_descr="pvmove that is called off: pvmove --abort"
pvmove_abort_timeout=900
dm_test_case pvmove_abort
pvmove_abort_body()
{
	pvmove_begun
	lvm_run pvmove --abort
	settled_on $RDISK1
	lvm_run pvmove -i1 $RDISK1 $slow
	lies_on one $slow
	lies_on two $slow
}

atf_init_test_cases()
{
	for test in core disk_log nosync convert extend missing \
	    failing_first failing_second pvmove pvmove_again pvmove_boot \
	    pvmove_abort; do
		atf_add_test_case $test
	done
}
