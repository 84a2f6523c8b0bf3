# SPDX-License-Identifier: BSD-2-Clause
# A dm device as a disk: its ioctls, file systems, swap, stacking, read-only
# devices, discard.

. $(atf_get_srcdir)/subr.sh

# answer key: of $H query's output in the file answers
answer()
{
	dm_get $1 <answers
}

query_descr="the questions that programs ask a disk"
dm_test_case query
query_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 4000 linear $DISK1 5000" "4000 96 zero"
	$H query $MAPPER/r${P}a >answers || atf_fail query
	dm_expect $((4096 * 512)) "$(answer DIOCGMEDIASIZE)" DIOCGMEDIASIZE
	dm_expect 512 "$(answer DIOCGSECTORSIZE)" DIOCGSECTORSIZE
	case $(answer DIOCGWEDGEINFO) in
	"4096 "*) ;;
	*) atf_fail "DIOCGWEDGEINFO: $(answer DIOCGWEDGEINFO)" ;;
	esac
	for label in DIOCGDINFO DIOCGDEFLABEL; do
		dm_expect "512 4096 4096 82564557" "$(answer $label)" $label
	done
	for other in DIOCGCACHE DIOCGSTRATEGY DIOCGSECTORALIGN DIOCGPARTINFO; do
		case $(answer $other) in
		E*) atf_fail "$other: $(answer $other)" ;;
		esac
	done
	grep -q 'geometry.sector-size=0x200' answers ||
	    atf_fail "DIOCGDISKINFO: $(grep geometry answers)"
	atf_check $H sync $MAPPER/r${P}a
	# A table without components has a size all the same, and 64 bits of it.
	dm_load ${P}a "0 10000000000 zero"
	atf_check dmctl resume ${P}a
	$H query $MAPPER/r${P}a >answers || atf_fail query
	dm_expect 5120000000000 "$(answer DIOCGMEDIASIZE)" "zero: DIOCGMEDIASIZE"
	dm_moves 512 read $MAPPER/r${P}a 5119999999488 512 0
	# disklabel(8) and iostat(8) know it.
	atf_check -s ignore -o match:"total sectors: 4294967295" -e ignore \
	    disklabel $MAPPER/r${P}a
	minor=$($H ioctl command=info name=${P}a | dm_get minor)
	sysctl -n hw.disknames | tr ' ' '\n' | grep -q "^dm$((minor))\$" ||
	    atf_fail "dm$((minor)) is not in hw.disknames"
}

grow_descr="the size follows the table"
dm_test_case grow
grow_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 1000 linear $DISK1 5000"
	for size in 2000 500 3000; do
		dm_load ${P}a "0 $size linear $DISK1 5000"
		atf_check dmctl resume ${P}a
		$H query $MAPPER/r${P}a >answers
		dm_expect $((size * 512)) "$(answer DIOCGMEDIASIZE)" "size"
	done
}

filesystem_descr="newfs, mount, fsck on linear and striped, and resize_ffs"
dm_test_case filesystem
filesystem_timeout=600
filesystem_body()
{
	dm_need
	dm_disk 1 40000
	dm_disk 2 40000
	for line in "0 16000 linear $DISK1 4096" \
	    "0 16000 striped 2 16 $DISK1 4096 $DISK2 4096"; do
		dm_make ${P}a "$line"
		dm_newfs $MAPPER/r${P}a
		dm_mount $MAPPER/${P}a mnt
		dm_pattern mnt/data 2000
		(cd mnt && mkdir dir && cp data dir/copy) || atf_fail cp
		atf_check umount $(pwd)/mnt
		atf_check -o ignore fsck_ffs -fn $MAPPER/r${P}a
		dm_mount $MAPPER/${P}a mnt
		dm_same "file system on $line" mnt/data mnt/dir/copy
		dm_pattern data 2000
		dm_same "file system on $line" mnt/data data
		atf_check umount $(pwd)/mnt
		atf_check dmctl remove ${P}a
	done
}

stack_descr="dm on dm on dm, with a file system on top"
dm_test_case stack
stack_body()
{
	dm_need
	dm_disk 1 40000
	dm_make ${P}a "0 10000 linear $DISK1 4096"
	dm_make ${P}b "0 10000 linear $DISK1 20000"
	dm_make ${P}c "0 20000 striped 2 8 $MAPPER/${P}a 0 $MAPPER/${P}b 0"
	dm_make ${P}d "0 10000 linear $MAPPER/${P}c 10000" \
	    "10000 10000 linear $MAPPER/${P}c 0"
	atf_check $H verify $MAPPER/r${P}d 20000 500 9
	dm_newfs $MAPPER/r${P}d
	dm_mount $MAPPER/${P}d mnt
	dm_pattern mnt/data 2000
	dm_pattern data 2000
	atf_check umount $(pwd)/mnt
	dm_mount $MAPPER/${P}d mnt
	dm_same "through three layers" data mnt/data
	atf_check umount $(pwd)/mnt
	# From the top down only.
	for name in a b c; do
		atf_check -s exit:1 -e match:busy dmctl remove $P$name
	done
	for name in d c b a; do
		atf_check dmctl remove $P$name
	done
}

restack_descr="each table sees the devices under it as they are then"
dm_test_case restack
restack_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 4000 linear $DISK1 4096"
	dm_make ${P}b "0 4000 linear $MAPPER/${P}a 0"
	dm_make ${P}c "0 100 linear $MAPPER/${P}a 0"
	for size in 9000 2000 6000; do
		# What lies above must let go of what is going to be cut off.
		dm_load ${P}b "0 1000 linear $MAPPER/${P}a 0"
		atf_check dmctl resume ${P}b
		dm_load ${P}a "0 $size linear $DISK1 4096"
		atf_check dmctl resume ${P}a
		dm_refuse EINVAL ioctl command=reload name=${P}b \
		    "line=0 $((size + 1)) linear $MAPPER/${P}a 0"
		dm_load ${P}b "0 $size linear $MAPPER/${P}a 0"
		atf_check dmctl resume ${P}b
		dm_moves 512 write $MAPPER/r${P}b $(((size - 1) * 512)) 512 0x42
		dm_moves 512 read $MAPPER/r${P}a $(((size - 1) * 512)) 512 0x42
	done
	# So it is with what may be written.
	atf_check -o ignore $H ioctl command=reload name=${P}a flags:1 \
	    "line=0 6000 linear $DISK1 4096"
	atf_check dmctl resume ${P}a
	dm_refuse EROFS ioctl command=reload name=${P}b \
	    "line=0 6000 linear $MAPPER/${P}a 0"
	dm_load ${P}a "0 6000 linear $DISK1 4096"
	atf_check dmctl resume ${P}a
	dm_load ${P}b "0 6000 linear $MAPPER/${P}a 0"
	atf_check dmctl resume ${P}b
	dm_moves 512 write $MAPPER/r${P}b 0 512 0x43
}

swap_descr="swap on a volume"
dm_test_case swap
swap_body()
{
	dm_need
	dm_disk 1 40000
	dm_swap_on "linear $DISK1 4096"
}

readonly_descr="a read-only device takes no writes"
dm_test_case readonly
readonly_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 1000 linear $DISK1 5000"
	atf_check -o ignore $H ioctl command=reload name=${P}a flags:1 \
	    "line=0 1000 linear $DISK1 5000"
	atf_check dmctl resume ${P}a
	dm_expect 1 $(($($H ioctl command=info name=${P}a | dm_get flags) & 1)) \
	    "READONLY"
	dm_refuse EROFS open $MAPPER/r${P}a w
	dm_refuse EROFS open $MAPPER/${P}a w
	dm_moves 512 read $MAPPER/r${P}a 0 512 0
	# Opened before it became so: then writes fail.
	dm_load ${P}a "0 1000 linear $DISK1 5000"
	atf_check dmctl resume ${P}a
	atf_check $H open $MAPPER/r${P}a w true
}

discard_descr="discard goes to the components that can, and tells when none can"
dm_test_case discard
discard_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 1024 linear $DISK1 5000" "1024 1024 zero"
	# vnd(4) can; other disks' answers pass through.
	$H discard $RDISK1 $((5000 * 512)) 4096 >own
	$H discard $MAPPER/r${P}a 0 4096 >ours
	dm_same "the component's answer" own ours
	atf_check $H discard $MAPPER/r${P}a $((1024 * 512)) 4096
	dm_refuse EINVAL discard $MAPPER/r${P}a $((2048 * 512)) 4096
	dm_refuse EINVAL discard $MAPPER/r${P}a 100 4096
}

wedge_descr="a wedge on a dm device is refused, or leads to that device"
dm_test_case wedge
wedge_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 4000 linear $DISK1 5000"
	# dk(4) takes its parent to have partitions, and a minor for each.
	if ! dkctl $MAPPER/r${P}a addwedge ${P}w 64 1000 ffs >out 2>&1; then
		atf_check -s ignore -e ignore -o not-match:"${P}w" \
		    dkctl $MAPPER/r${P}a listwedges
		return 0
	fi
	wedge=$(sed -n 's/^\(dk[0-9]*\) .*/\1/p' out)
	dm_moves 4096 write /dev/r$wedge 0 4096 0x31
	dm_moves 4096 read $RDISK1 $((5064 * 512)) 4096 0x31
	atf_check -o ignore dkctl $MAPPER/r${P}a delwedge $wedge
	atf_check dmctl remove ${P}a
}

# removable: two disks, of which the second is vnd(4) $vnd and can be forced away.  $part
# is a partition there: not the one that vnconfig(8) itself has open, which vnd(4) does
# not revoke, takes I/O for when nobody is there to do it, and panics.
removable()
{
	dm_disk 1
	dm_disk 2
	vnd=$(tail -n 1 dm.vnds 2>/dev/null)
	[ -n "$vnd" ] || atf_skip "only a vnd(4) can be forced away"
	case $(uname -m) in
	amd64|i386|evbarm) ;;
	*) atf_skip "the label is elsewhere on this port" ;;
	esac
	$H label $RDISK2 0 20000 || atf_fail "no label written"
	part=${DISK2%?}a
}

gone_descr="a component that is forced away under I/O, and comes back"
dm_test_case gone
gone_body()
{
	dm_need
	removable
	dm_make ${P}a "0 8000 linear $DISK1 0" "8000 8000 linear $part 0"
	dm_start verify $H verify $MAPPER/r${P}a 16000 1000000 5
	dm_moves 65536 read $MAPPER/r${P}a $((9000 * 512)) 65536
	atf_check vnconfig -u -F $vnd
	dm_over verify
	# What is there after that depends on where the I/O was.
	grep -E "ENXIO|EIO" verify.out >/dev/null ||
	    atf_fail "verify: $(cat verify.out)"
	dm_moves 65536 read $MAPPER/r${P}a 0 65536
	atf_check -s exit:1 -o match:"ENXIO|EIO" \
	    $H read $MAPPER/r${P}a $((9000 * 512)) 65536
	atf_check -s exit:1 -o match:"ENXIO|EIO" \
	    $H write $MAPPER/r${P}a $((9000 * 512)) 65536
	atf_check -o ignore $H query $MAPPER/r${P}a
	atf_check -o match:"8000 linear" dmctl table ${P}a
	atf_check dmctl suspend ${P}a
	atf_check dmctl resume ${P}a
	dm_load ${P}a "0 8000 linear $DISK1 0"
	atf_check dmctl resume ${P}a
	dm_moves 65536 read $MAPPER/r${P}a 0 65536
	atf_check vnconfig -c $vnd $(pwd)/disk2
	dm_load ${P}a "0 8000 linear $part 0"
	atf_check dmctl resume ${P}a
	dm_moves 65536 read $MAPPER/r${P}a 0 65536
	atf_check dmctl remove ${P}a
}

back_descr="a disk that went and came back is new to new tables"
dm_test_case back
back_body()
{
	dm_need
	removable
	dm_make ${P}a "0 8000 linear $part 0"
	dm_make ${P}b "0 8000 linear $MAPPER/${P}a 0"
	dm_moves 65536 write $MAPPER/r${P}b 0 65536 0x11
	dd if=$RDISK2 of=image bs=64k 2>/dev/null
	atf_check vnconfig -u -F $vnd
	atf_check -s exit:1 -o match:"ENXIO|EIO" $H read $MAPPER/r${P}b 0 512
	# The same unit with another disk in it.
	atf_check vnconfig -c $vnd $(pwd)/image
	dm_make ${P}n "0 8000 linear $part 0"
	dm_moves 65536 read $MAPPER/r${P}n 0 65536 0x11
	dm_moves 65536 write $MAPPER/r${P}n 0 65536 0x22
	# The old table keeps what it had, which is gone.
	atf_check -s exit:1 -o match:"ENXIO|EIO" $H read $MAPPER/r${P}a 0 512
	atf_check -s exit:1 -o match:"ENXIO|EIO" $H write $MAPPER/r${P}b 0 512
	dm_moves 65536 read $MAPPER/r${P}n 0 65536 0x22
	# With a table of today it has the new one, and so has what lies on it.
	dm_load ${P}a "0 8000 linear $part 0"
	atf_check dmctl resume ${P}a
	dm_moves 65536 read $MAPPER/r${P}b 0 65536 0x22
	for name in b a n; do
		atf_check dmctl remove $P$name
	done
}

atf_init_test_cases()
{
	for test in query grow filesystem stack restack swap readonly discard wedge \
	    gone back; do
		atf_add_test_case $test
	done
}
