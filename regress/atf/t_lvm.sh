# SPDX-License-Identifier: BSD-2-Clause
# LVM, from pvcreate to lvremove.

. $(atf_get_srcdir)/subr.sh
. $(atf_get_srcdir)/lvm.sh

linear_descr="a linear volume: create, newfs, mount, extend, rename, remove"
linear_timeout=900
dm_test_case linear
linear_body()
{
	lvm_setup 2
	lvm_run lvcreate -L 16m -n one $VG
	atf_check -o match:"one" -e ignore lvm lvs $VG
	dm_newfs $(lv_char one)
	dm_mount $(lv_block one) mnt
	dm_pattern mnt/data 2000
	dm_pattern data 2000
	# Renamed while mounted: the file system does not notice.
	lvm_run lvrename $VG one two
	dm_same "after lvrename" data mnt/data
	dm_pattern mnt/more 1000
	# In use: it can be neither deactivated nor removed.
	lvm lvchange -an $VG/two >lvm.out 2>&1 && atf_fail "lvchange -an, mounted"
	lvm lvremove -f $VG/two >lvm.out 2>&1 && atf_fail "lvremove, mounted"
	dm_same "after refused removals" data mnt/data
	atf_check umount $(pwd)/mnt
	# Larger, over both disks.
	lvm_run lvextend -L 80m $VG/two
	dm_moves 65536 write $(lv_char two) $((70 * 1048576)) 65536 0x70
	dm_moves 65536 read $(lv_char two) $((70 * 1048576)) 65536 0x70
	atf_check -o ignore -e ignore resize_ffs -y $(lv_char two)
	atf_check -o ignore fsck_ffs -fy $(lv_char two)
	dm_mount $(lv_block two) mnt
	[ $(df -k mnt | awk 'END { print $2 }') -gt 65536 ] ||
	    atf_fail "the file system has not grown: $(df -k mnt)"
	dm_same "after lvextend" data mnt/data
	dm_pattern mnt/large 10000
	dm_pattern large 10000
	dm_same "on the new part" large mnt/large
	atf_check umount $(pwd)/mnt
	lvm_run vgchange -an $VG
	lvm_run vgchange -ay $VG
	dm_mount $(lv_block two) mnt
	dm_same "after deactivation" large mnt/large
	atf_check umount $(pwd)/mnt
	lvm_run lvremove -f $VG/two
	atf_check -o not-match:"$VG" dmctl ls
	lvm_run vgremove $VG
	lvm_run pvremove $RDISK1 $RDISK2
}

striped_descr="a striped volume"
striped_timeout=900
dm_test_case striped
striped_body()
{
	lvm_setup 2
	lvm_run lvcreate -i 2 -I 16 -L 16m -n one $VG
	atf_check -o match:"striped" dmctl table $VG-one
	atf_check $H verify $(lv_char one) 32768 300 10
	dm_newfs $(lv_char one)
	dm_mount $(lv_block one) mnt
	dm_pattern mnt/data 3000
	dm_pattern data 3000
	atf_check umount $(pwd)/mnt
	lvm_run lvextend -i 2 -I 16 -L 32m $VG/one
	dm_mount $(lv_block one) mnt
	dm_same "after lvextend" data mnt/data
	atf_check umount $(pwd)/mnt
	lvm_run lvremove -f $VG/one
	atf_check -o not-match:"$VG" dmctl ls
}

under_descr="a volume that another device lies on grows and shrinks"
under_timeout=900
dm_test_case under
under_body()
{
	lvm_setup 2
	lvm_run lvcreate -L 16m -n one $VG
	dm_make ${P}a "0 32768 linear $(lv_block one) 0"
	dm_pattern data 1000
	atf_check -o ignore -e ignore dd if=data of=$MAPPER/r${P}a bs=64k conv=sync
	lvm_run lvextend -L 32m $VG/one
	# The upper device has the lower one open all the time.
	dm_load ${P}a "0 65536 linear $(lv_block one) 0"
	atf_check dmctl resume ${P}a
	dm_moves 65536 write $MAPPER/r${P}a $((30 * 1048576)) 65536 0x31
	dm_moves 65536 read $MAPPER/r${P}a $((30 * 1048576)) 65536 0x31
	dm_from $MAPPER/r${P}a 0 1000 >got
	dm_same "after lvextend below" data got
	dm_load ${P}a "0 32768 linear $(lv_block one) 0"
	atf_check dmctl resume ${P}a
	lvm_run lvreduce -f -L 16m $VG/one
	dm_refuse EINVAL ioctl command=reload name=${P}a \
	    "line=0 65536 linear $(lv_block one) 0"
	dm_from $MAPPER/r${P}a 0 1000 >got
	dm_same "after lvreduce below" data got
	atf_check dmctl remove ${P}a
	lvm_run lvremove -f $VG/one
}

swap_descr="swap on a logical volume"
swap_timeout=600
dm_test_case swap
swap_body()
{
	lvm_setup 2
	lvm_run lvcreate -L 16m -n swap $VG
	lv_block swap >dm.swaps
	atf_check -o ignore -e ignore swapctl -a $(lv_block swap)
	lvm lvremove -f $VG/swap >lvm.out 2>&1 && atf_fail "lvremove of swap"
	atf_check swapctl -d $(lv_block swap)
	lvm_run lvremove -f $VG/swap
}

guard_descr="the label guard does not hinder LVM, even where it refuses tables"
guard_timeout=600
dm_test_case guard
guard_body()
{
	dm_need
	sysctl -n hw.dm.label_guard >/dev/null 2>&1 || atf_skip "no hw.dm"
	lvm_setup 2
	atf_check -o ignore sysctl -w hw.dm.label_guard=2
	lvm_run lvcreate -L 8m -n one $VG
	dm_moves 65536 write $(lv_char one) 0 65536
	lvm_run lvremove -f $VG/one
}

atf_init_test_cases()
{
	for test in linear striped under swap guard; do
		atf_add_test_case $test
	done
}
