# SPDX-License-Identifier: BSD-2-Clause
# verity: a file system that is read by way of its hashes, from a good disk and from one
# that has changed.

. $(atf_get_srcdir)/subr.sh

SALT=rustdm
SALTHEX=72757374646d

# dm_image sectors: a file system with files on disk 1, unmounted, and its tree on
# disk 2; $ROOT, and the sums of the files in `sums'.
dm_image()
{
	local n blocks=$(($1 / 8))
	dm_disk 1 $1
	dm_disk 2 $(($1 / 64 + 128))
	dm_newfs $RDISK1
	dm_mount $DISK1 mnt
	for n in 1 2 3 4 5 6; do
		head -c $((n * 300000 + 7)) /dev/urandom >mnt/file$n
	done
	(cd mnt && cksum file*) >sums
	umount $(pwd)/mnt || atf_fail "umount"
	ROOT=$($H tree $RDISK1 $blocks tree $SALT) || atf_fail "tree"
	dd if=tree of=$RDISK2 bs=4096 conv=sync 2>/dev/null || atf_fail "dd"
	LINE="0 $((blocks * 8)) verity 1 $DISK1 $DISK2 4096 4096 $blocks 1 sha256 $ROOT $SALTHEX"
}

# dm_verity line: loads and resumes it, read-only, with the device's nodes.
dm_verity()
{
	if [ ! -f made ]; then
		dmctl create ${P}v >err 2>&1 || atf_fail "create: $(cat err)"
		touch made
	fi
	atf_check -o ignore $H ioctl command=reload name=${P}v flags:1 line="$1"
	dmctl resume ${P}v >err 2>&1 || atf_fail "resume: $(cat err)"
	dm_nodes ${P}v
}

dm_verity_status()
{
	$H ioctl command=status name=${P}v flags:0 | dm_get cmd_data.0.params
}

files_descr="a file system is mounted and read by way of its hashes"
dm_test_case files
files_body()
{
	local i
	dm_need
	dm_image 20480
	dm_verity "$LINE"
	dm_mount "-r $MAPPER/${P}v" mnt
	(cd mnt && cksum file*) >found
	dm_same "the files" sums found
	# Several readers at once, and tables that are exchanged under them.
	for i in 1 2 3; do
		dm_start read$i dd if=$MAPPER/r${P}v of=/dev/null bs=64k
	done
	for i in 1 2 3 4 5; do
		dmctl suspend ${P}v >/dev/null
		dm_verity "$LINE"
	done
	for i in 1 2 3; do dm_join read$i; done
	(cd mnt && cksum file*) >found
	dm_same "the files after an exchange" sums found
	dm_expect V "$(dm_verity_status)" "status"
	dm_refuse EROFS write $MAPPER/r${P}v 0 4096
	umount $(pwd)/mnt || atf_fail "umount"
	dd if=$MAPPER/r${P}v of=all bs=64k 2>/dev/null || atf_fail "dd"
	# A real disk is larger.
	dd if=$RDISK1 of=disk bs=64k count=160 2>/dev/null
	dm_same "all of the device" disk all
}

corrupted_descr="a wrong block is found in data and tree, and only it is lost"
dm_test_case corrupted
corrupted_body()
{
	dm_need
	dm_image 20480
	# Block 1000, and the block before it.
	atf_check -o ignore $H write $RDISK1 $((1000 * 4096)) 512 0x5a
	dm_verity "$LINE"
	dm_moves 4096 read $MAPPER/r${P}v $((999 * 4096)) 4096
	dm_expect V "$(dm_verity_status)" "status"
	dm_refuse EIO read $MAPPER/r${P}v $((1000 * 4096)) 4096
	dm_refuse EIO read $MAPPER/r${P}v $((1000 * 4096 + 2048)) 512
	dm_moves 4096 read $MAPPER/r${P}v $((1001 * 4096)) 4096
	dm_expect C "$(dm_verity_status)" "status"
	# What is there is given if the table says so.
	dm_verity "$LINE 1 ignore_corruption"
	dm_moves 512 read $MAPPER/r${P}v $((1000 * 4096)) 512 0x5a
	# The tree's first block: nothing can be read.
	atf_check -o ignore $H write $RDISK2 4096 512 0
	dm_verity "$LINE"
	dm_refuse EIO read $MAPPER/r${P}v 0 4096
	dm_refuse EIO read $MAPPER/r${P}v $((2559 * 4096)) 4096
	dm_expect C "$(dm_verity_status)" "status"
}

refused_descr="tables that cannot be right are refused"
dm_test_case refused
refused_body()
{
	local line
	dm_need
	dm_image 20480
	atf_check -o ignore dmctl create ${P}v
	# One that takes writes.
	dm_refuse EINVAL ioctl command=reload name=${P}v line="$LINE"
	for line in \
	    "0 20480 verity 1 $DISK1 $DISK2 4096 4096 18446744073709551615 1 sha256 $ROOT -" \
	    "0 20480 verity 1 $DISK1 $DISK2 4096 4096 2560 18446744073709551615 sha256 $ROOT -" \
	    "0 20480 verity 1 $DISK1 $DISK2 4096 4096 2560 1 sha256 ${ROOT}00 -" \
	    "0 20480 verity 1 $DISK1 $DISK2 0 4096 2560 1 sha256 $ROOT -"
	do
		dm_refuse EINVAL ioctl command=reload name=${P}v flags:1 line="$line"
	done
	line="0 20480 verity 1 $DISK1 $DISK2 4096 4096 2560 1000000 sha256 $ROOT -"
	dm_refuse E2BIG ioctl command=reload name=${P}v flags:1 line="$line"
	line="0 20480 verity 1 $DISK1 $DISK2 4096 4096 2560 1 sha257 $ROOT -"
	dm_refuse ENOENT ioctl command=reload name=${P}v flags:1 line="$line"
}

atf_init_test_cases()
{
	atf_add_test_case files
	atf_add_test_case corrupted
	atf_add_test_case refused
}
