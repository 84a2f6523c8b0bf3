# SPDX-License-Identifier: BSD-2-Clause
# The data that reads and writes move, target by target.

. $(atf_get_srcdir)/subr.sh

linear_descr="linear puts each sector where its line says"
dm_test_case linear
linear_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	# Two ranges of the first disk, swapped, around one of the second.
	dm_make ${P}a "0 100 linear $DISK1 6000" "100 200 linear $DISK2 5000" \
	    "300 100 linear $DISK1 5000"
	dm_pattern data 400
	atf_check -e ignore dd if=data of=$MAPPER/r${P}a bs=51200
	dm_from $RDISK1 6000 100 >part1
	dm_from $RDISK2 5000 200 >part2
	dm_from $RDISK1 5000 100 >part3
	cat part1 part2 part3 >parts
	dm_same "where the data went" data parts
	# By way of the block device and across the lines' borders.
	dm_from $MAPPER/${P}a 0 400 >back
	dm_same "read by the block device" data back
	dd if=$MAPPER/r${P}a of=back bs=204800 2>/dev/null
	dm_same "read at once" data back
	dm_moves 51200 read $MAPPER/r${P}a $((50 * 512)) 51200
}

striped_descr="striped deals chunks out in turn"
dm_test_case striped
striped_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	for chunk in 1 24; do
		length=$((chunk * 12))
		dm_make ${P}a \
		    "0 $length striped 2 $chunk $DISK1 5000 $DISK2 6000"
		dm_pattern data $length
		atf_check -e ignore dd if=data of=$MAPPER/r${P}a bs=$((length * 512))
		: >parts
		for i in 0 1 2 3 4 5; do
			dm_from $RDISK1 $((5000 + i * chunk)) $chunk >>parts
			dm_from $RDISK2 $((6000 + i * chunk)) $chunk >>parts
		done
		dm_same "chunks of $chunk" data parts
		dd if=$MAPPER/r${P}a of=back bs=$((length * 512)) 2>/dev/null
		dm_same "read back, chunks of $chunk" data back
		atf_check dmctl remove ${P}a
	done
	# Five stripes, on which the C driver fell.
	dm_make ${P}a "0 6400 striped 5 16 $DISK1 5000 $DISK2 5000 \
$DISK1 7000 $DISK2 7000 $DISK1 9000"
	atf_check $H verify $MAPPER/r${P}a 6400 500 2
}

zero_descr="zero reads as zeroes and drops what is written"
dm_test_case zero
zero_body()
{
	dm_need
	dm_make ${P}a "0 200 zero"
	dm_moves 102400 read $MAPPER/r${P}a 0 102400 0
	# Checks, too, that the writer's buffer stays as it was.
	dm_moves 102400 write $MAPPER/r${P}a 0 102400 0x5a
	dm_moves 102400 read $MAPPER/r${P}a 0 102400 0
	dm_moves 8192 read $MAPPER/${P}a 0 8192 0
}

error_descr="error fails reads and writes, and only where it is"
dm_test_case error
error_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 100 linear $DISK1 5000" "100 100 error" "200 50 zero"
	dm_moves 51200 write $MAPPER/r${P}a 0 51200
	dm_refuse EIO read $MAPPER/r${P}a 51200 512
	dm_refuse EIO write $MAPPER/r${P}a 51200 512
	dm_moves 512 read $MAPPER/r${P}a $((200 * 512)) 512 0
	# An I/O into the error tells how far it came, or fails.
	$H read $MAPPER/r${P}a $((92 * 512)) 8192 >out
	case $(cat out) in
	EIO|4096) ;;
	*) atf_fail "a read into an error: $(cat out)" ;;
	esac
}

unstriped_descr="unstriped shows one stripe of what striped dealt out"
dm_test_case unstriped
unstriped_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 240 striped 3 8 $DISK1 5000 $DISK1 6000 $DISK1 7000"
	dm_pattern data 240
	# The chunks in the order of the device, so that unstriped takes them apart.
	atf_check -e ignore dd if=data of=$RDISK1 bs=512 seek=5000 conv=notrunc
	for i in 0 1 2; do
		dm_make ${P}u$i "0 80 unstriped 3 8 $i $DISK1 5000"
		for row in 0 1 2 3 4 5 6 7 8 9; do
			dd if=data bs=4096 skip=$((row * 3 + i)) count=1 2>/dev/null
		done >wanted
		dd if=$MAPPER/r${P}u$i of=back bs=40960 2>/dev/null
		dm_same "stripe $i" wanted back
	done
	dm_expect "0 80 unstriped 3 8 1 COMPONENT 5000" \
	    "$(dm_table ${P}u1 | sed 's/[0-9]*:[0-9]*/COMPONENT/')" table
}

switch_descr="switch sends each region by the path that messages gave it"
dm_test_case switch
switch_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	dm_make ${P}a "0 64 switch 2 8 0 $DISK1 5000 $DISK2 5000"
	dm_pattern data 64
	atf_check -e ignore dd if=data of=$MAPPER/r${P}a bs=32768
	dm_from data 0 8 >first
	dm_from $RDISK1 5000 8 >back
	dm_same "region 0 by path 0" first back
	dm_from data 8 8 >second
	dm_from $RDISK2 5008 8 >back
	dm_same "region 1 by path 1" second back
	# All by path 1, where regions 0, 2, 4 and 6 were not written.
	atf_check -o ignore $H ioctl command=message name=${P}a sector:0 \
	    "message=set_region_mappings 0:1 R1,7"
	dm_from $RDISK2 5000 64 >wanted
	dm_from $MAPPER/r${P}a 0 64 >back
	dm_same "all by path 1" wanted back
	dm_refuse EINVAL ioctl command=message name=${P}a sector:0 \
	    "message=set_region_mappings 8:0"
	dm_refuse EINVAL ioctl command=message name=${P}a sector:0 \
	    "message=set_region_mappings 0:2"
}

dust_descr="dust fails reads of bad blocks until they are written"
dm_test_case dust
dust_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 200 dust $DISK1 4096 4096"
	dm_tell() {
		$H ioctl command=message name=${P}a sector:0 "message=$*"
	}
	dm_tell addbadblock 513 >/dev/null || atf_fail "addbadblock"
	dm_moves 102400 read $MAPPER/r${P}a 0 102400
	dm_tell enable >/dev/null || atf_fail "enable"
	dm_refuse EIO read $MAPPER/r${P}a 4096 512
	dm_moves 4096 read $MAPPER/r${P}a 0 4096
	dm_moves 4096 read $MAPPER/r${P}a 8192 4096
	dm_expect "dust_query_block: block 513 found in badblocklist" \
	    "$(dm_tell queryblock 513 | dm_get message_reply)" queryblock
	dm_moves 4096 write $MAPPER/r${P}a 4096 4096
	dm_moves 4096 read $MAPPER/r${P}a 4096 4096
	dm_expect "countbadblocks: 0 badblock(s) found" \
	    "$(dm_tell countbadblocks | dm_get message_reply)" countbadblocks
}

delay_descr="delay under a mounted file system, and a suspend that does not wait"
dm_test_case delay
delay_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 10000 delay $DISK1 4096 5 $DISK1 4096 20"
	dm_newfs $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_pattern data 400
	atf_check cp data mnt/data
	atf_check sync
	# Longer than the test may take: it ends because the suspend lets all go.
	dm_load ${P}a "0 10000 delay $DISK1 4096 3600000"
	atf_check dmctl resume ${P}a
	dm_start copy cp data mnt/more
	dm_start reader dd if=$MAPPER/r${P}a of=back bs=512 count=1
	until $H ioctl command=status name=${P}a flags:0 | grep -q "params=[1-9]"; do
		sleep 1
	done
	dm_load ${P}a "0 10000 linear $DISK1 4096"
	atf_check dmctl suspend ${P}a
	atf_check dmctl resume ${P}a
	dm_join reader
	dm_join copy
	dm_same "what was written" data mnt/data
	dm_same "what was written while it was delayed" data mnt/more
	atf_check umount $(pwd)/mnt
	atf_check -o ignore -e ignore fsck_ffs -fn $MAPPER/r${P}a
}

flakey_descr="flakey under a mounted file system, and its features"
dm_test_case flakey
flakey_body()
{
	dm_need
	dm_disk 1
	# An up interval of 0 is bad all the time, a down interval of 0 never.
	dm_make ${P}a "0 10000 flakey $DISK1 4096 1000000 0"
	dm_newfs $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_pattern data 100
	atf_check cp data mnt/data
	atf_check umount $(pwd)/mnt
	dm_mount $MAPPER/${P}a mnt
	# While writes are dropped all seems well, and then they are gone.
	dm_load ${P}a "0 10000 flakey $DISK1 4096 0 1 1 drop_writes"
	atf_check dmctl resume ${P}a
	atf_check cp data mnt/lost
	atf_check umount $(pwd)/mnt
	dm_load ${P}a "0 10000 flakey $DISK1 4096 0 1 5 corrupt_bio_byte 32 r 90 0"
	atf_check dmctl resume ${P}a
	dm_from $MAPPER/r${P}a 0 8 >changed
	dm_load ${P}a "0 10000 linear $DISK1 4096"
	atf_check dmctl resume ${P}a
	dm_from $MAPPER/r${P}a 0 8 >asis
	cmp asis changed >cmp.out 2>&1 && atf_fail "no byte was changed"
	dm_expect Z "$(dd if=changed bs=1 skip=31 count=1 2>/dev/null)" "the byte"
	atf_check -o ignore -e ignore fsck_ffs -fy $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_same "what was written before" data mnt/data
	[ ! -e mnt/lost ] || atf_fail "a write that was dropped is there"
	atf_check umount $(pwd)/mnt
	dm_load ${P}a "0 10000 flakey $DISK1 4096 0 1"
	atf_check dmctl resume ${P}a
	dm_refuse EIO read $MAPPER/r${P}a 0 512
	dm_refuse EIO write $MAPPER/r${P}a 0 512
}

end_descr="I/O at, across and beyond the end"
dm_test_case end
end_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 100 linear $DISK1 5000"
	dm_moves 512 read $MAPPER/r${P}a $((99 * 512)) 512
	dm_moves 1024 read $MAPPER/r${P}a $((98 * 512)) 4096
	dm_moves 0 read $MAPPER/r${P}a $((100 * 512)) 512
	$H write $MAPPER/r${P}a $((98 * 512)) 4096 >out
	case $(cat out) in
	1024|ENOSPC) ;;
	*) atf_fail "a write across the end: $(cat out)" ;;
	esac
	for node in ${P}a r${P}a; do
		$H write $MAPPER/$node $((1000 * 512)) 512 >out && [ "$(cat out)" != 0 ] &&
		    atf_fail "a write beyond the end: $(cat out)"
	done
	dm_from $RDISK1 5100 8 >after
	dd if=/dev/zero of=zeroes bs=512 count=8 2>/dev/null
	dm_same "sectors behind the device" zeroes after
	dm_refuse EINVAL read $MAPPER/r${P}a 100 512
}

no_table_descr="a device without a table"
dm_test_case no_table
no_table_body()
{
	dm_need
	atf_check dmctl create ${P}a
	dm_nodes ${P}a
	dm_refuse ENXIO read $MAPPER/r${P}a 0 512
	dm_refuse ENXIO write $MAPPER/r${P}a 0 512
}

verify_descr="reads and writes at random, on every layout at once"
dm_test_case verify
verify_timeout=900
verify_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	dm_make ${P}a "0 1000 linear $DISK1 5000" \
	    "1000 1600 striped 2 8 $DISK1 7000 $DISK2 7000" \
	    "2600 3 linear $DISK2 5000" "2603 997 linear $DISK2 5100"
	atf_check $H verify $MAPPER/r${P}a 3600 1500 3
	# Two at once, on different parts, through a stacked device.
	dm_make ${P}b "0 1800 linear $MAPPER/${P}a 0"
	dm_make ${P}c "0 1800 linear $MAPPER/${P}a 1800"
	dm_start other $H verify $MAPPER/r${P}b 1800 700 4
	atf_check $H verify $MAPPER/r${P}c 1800 700 5
	dm_join other
}

atf_init_test_cases()
{
	for test in linear striped zero error unstriped switch dust delay flakey end no_table verify; do
		atf_add_test_case $test
	done
}
