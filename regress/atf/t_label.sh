# SPDX-License-Identifier: BSD-2-Clause
# The sectors at a component's start that belong to its disklabel, and the labels
# of the dm device itself.

. $(atf_get_srcdir)/subr.sh

# label_disk: $DISK1 carries a label with its NetBSD slice at $1, which begins at
# sector 63 or 2048 behind an MBR, or at 0 without one.
label_disk()
{
	local slice=$1
	dm_disk 1
	case $(uname -m) in
	amd64|i386|evbarm) ;;
	*) atf_skip "the label is elsewhere on this port" ;;
	esac
	$H label $RDISK1 $slice 20000 || atf_fail "no label written"
	disklabel $RDISK1 >label.before 2>/dev/null
	grep -q "^label: dmtest" label.before ||
	    atf_fail "the disk's driver does not know the label"
}

# guarded first-sector: a device on the whole disk refuses writes to two sectors.
guarded()
{
	local first=$1 sector
	dm_make ${P}a "0 20000 linear $DISK1 0"
	dd if=$RDISK1 of=before bs=64k count=32 2>/dev/null
	for sector in $first $((first + 1)); do
		dm_refuse EROFS write $MAPPER/r${P}a $((sector * 512)) 512
		# By the block device it is the buffer cache that is refused, and
		# nobody hears of it.
		$H write $MAPPER/${P}a $((sector * 512)) 512 >ignored
	done
	# A larger write that covers them fails whole.
	dm_refuse EROFS write $MAPPER/r${P}a $(((first - first % 16) * 512)) 8192
	dd if=$RDISK1 of=after bs=64k count=32 2>/dev/null
	dm_same "what refused writes have touched" before after
	dm_moves 512 write $MAPPER/r${P}a $(((first + 2) * 512)) 512
	[ $first -eq 0 ] ||
	    dm_moves 512 write $MAPPER/r${P}a $(((first - 1) * 512)) 512 0
	dm_moves 1024 read $MAPPER/r${P}a $((first * 512)) 1024
	disklabel $RDISK1 >label.after 2>/dev/null
	dm_same "the label" label.before label.after
	# DIOCWLABEL lifts the guard until the device is closed.
	dm_moves 512 write -l $MAPPER/r${P}a $(((first + 1) * 512)) 512
	dm_refuse EROFS write $MAPPER/r${P}a $(((first + 1) * 512)) 512
}

slice63_descr="the classic slice: sectors 63 and 64 are kept, 65 is safe"
dm_test_case slice63
slice63_body()
{
	dm_need
	label_disk 63
	guarded 63
	dmesg | grep "first safe sector is 65" >/dev/null ||
	    atf_fail "no message about the reserved sectors"
}

slice2048_descr="a slice at 2048: sectors 2048 and 2049 are kept"
dm_test_case slice2048
slice2048_body()
{
	dm_need
	label_disk 2048
	guarded 2048
	dmesg | grep "first safe sector is 2050" >/dev/null ||
	    atf_fail "no message about the reserved sectors"
}

no_mbr_descr="a label without an MBR: sectors 0 and 1 are kept"
dm_test_case no_mbr
no_mbr_body()
{
	dm_need
	label_disk 0
	guarded 0
}

sysctl_descr="hw.dm.label_guard: off, guard, refuse"
dm_test_case sysctl
sysctl_body()
{
	dm_need
	sysctl -n hw.dm.label_guard >/dev/null 2>&1 || atf_skip "no hw.dm"
	label_disk 63
	dm_make ${P}a "0 1000 linear $DISK1 0"
	dm_refuse EROFS write $MAPPER/r${P}a $((63 * 512)) 512
	atf_check -o ignore sysctl -w hw.dm.label_guard=0
	dm_moves 512 write $MAPPER/r${P}a $((63 * 512)) 512
	atf_check -o ignore sysctl -w hw.dm.label_guard=2
	dm_refuse EINVAL ioctl command=reload name=${P}a \
	    "line=0 1000 linear $DISK1 64"
	atf_check -o ignore $H ioctl command=reload name=${P}a \
	    "line=0 1000 linear $DISK1 65"
	atf_check -o ignore sysctl -w hw.dm.label_guard=1
}

stacked_descr="the guard holds through a second device"
dm_test_case stacked
stacked_body()
{
	dm_need
	label_disk 63
	dm_make ${P}a "0 1000 linear $DISK1 0"
	dm_make ${P}b "0 1000 linear $MAPPER/${P}a 0"
	dm_refuse EROFS write $MAPPER/r${P}b $((64 * 512)) 512
	dm_moves 512 write $MAPPER/r${P}b $((65 * 512)) 512
}

unlabelled_descr="a disk without a label has no guard"
dm_test_case unlabelled
unlabelled_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 1000 linear $DISK1 0"
	for sector in 0 1 63 64; do
		dm_moves 512 write $MAPPER/r${P}a $((sector * 512)) 512
	done
}

own_descr="a label of the device's own, written and read back"
dm_test_case own
own_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 8000 linear $DISK1 5000"
	disklabel $MAPPER/r${P}a 2>/dev/null | sed -e 's/^label: .*/label: dmown/' \
	    >proto
	grep -q "^total sectors: 8000" proto || atf_fail "no label made up"
	disklabel -R -r $MAPPER/r${P}a proto >out 2>&1 ||
	    atf_fail "disklabel: $(cat out)"
	atf_check -o match:"^label: dmown" -e ignore disklabel -r $MAPPER/r${P}a
	atf_check -o match:"^label: dmown" -e ignore disklabel $MAPPER/r${P}a
	dm_load ${P}a "0 8000 linear $DISK1 5000"
	atf_check dmctl resume ${P}a
	atf_check -o match:"^label: dmown" -e ignore disklabel $MAPPER/r${P}a
}

suspended_descr="a suspended device tells its label, and tables are loaded on it"
dm_test_case suspended
suspended_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 8000 linear $DISK1 5000"
	atf_check -s ignore -o match:"^total sectors: 8000" -e ignore disklabel $MAPPER/r${P}a
	atf_check dmctl suspend ${P}a
	atf_check -s ignore -o match:"^total sectors: 8000" -e ignore disklabel $MAPPER/r${P}a
	dm_make ${P}b "0 1000 linear $MAPPER/${P}a 0"
	atf_check dmctl resume ${P}a
	dm_moves 512 read $MAPPER/r${P}b 0 512
}

wedges_descr="a device has no wedges and takes none"
dm_test_case wedges
wedges_body()
{
	dm_need
	dm_make ${P}a "0 8000 zero"
	atf_check -o match:"no wedges" -e ignore dkctl $MAPPER/r${P}a listwedges
	atf_check -s not-exit:0 -o ignore -e match:"not supported" \
	    dkctl $MAPPER/r${P}a addwedge ${P}w 100 100 ""
	atf_check -o match:"no wedges" -e ignore dkctl $MAPPER/r${P}a listwedges
}

hostile_descr="labels that are not the device's, and boot records in a circle"
dm_test_case hostile
hostile_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 8000 linear $DISK1 5000"
	for numbers in "0x55555600 64 4" "1048576 64 4" "1024 64 4" "512 0 4" \
	    "512 64 17" "512 64 65535"; do
		dm_refuse EINVAL relabel $MAPPER/r${P}a $numbers
	done
	atf_check $H relabel $MAPPER/r${P}a 512 64 4
	# A disk manager's boot records send who looks for a label to the next
	# track, which is the second sector that has one.
	printf '\0\0\0\0\124\0\0\0\1\0\0\0\1\0\0\0' >entry
	(dd if=/dev/zero bs=446 count=1; cat entry; dd if=/dev/zero bs=48 count=1
	    printf '\125\252') 2>/dev/null >record
	for sector in 0 32; do
		dd if=record of=$MAPPER/r${P}a bs=512 seek=$sector conv=notrunc \
		    2>/dev/null || atf_fail "no record written"
	done
	atf_check -s ignore -o match:"^total sectors: 8000" -e ignore \
	    disklabel $MAPPER/r${P}a
	dm_refuse EIO relabel $MAPPER/r${P}a 512 64 4
}

atf_init_test_cases()
{
	for test in slice63 slice2048 no_mbr sysctl stacked unlabelled own \
	    suspended wedges hostile; do
		atf_add_test_case $test
	done
}
