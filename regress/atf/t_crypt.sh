# SPDX-License-Identifier: BSD-2-Clause
# Target crypt: Linux's encrypted disks.  The component's content is compared with
# OpenSSL's for the same key, sector and data.

. $(atf_get_srcdir)/subr.sh

KEY32=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
KEY64=${KEY32}202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f
OTHER=$(echo $KEY64 | tr 0-9 1-90)

# message name text
message()
{
	$H ioctl command=message name=$1 message="$2" >message.out 2>&1
}

# sum device skip count: the MD5 of so many sectors.
sum()
{
	dm_from $1 $2 $3 | cksum -a md5
}

vectors_descr="what is on the component is what other programs make of it"
dm_test_case vectors
vectors_body()
{
	dm_need_target crypt
	dm_disk 1
	dm_make ${P}a "0 64 crypt aes-xts-plain64 $KEY64 7 $DISK1 1000" \
	    "64 64 crypt aes-xts-plain64 $KEY64 8 $DISK1 2000 2 sector_size:4096 iv_large_sectors" \
	    "128 64 crypt aes-cbc-essiv:sha256 $KEY32 0 $DISK1 3000" \
	    "192 64 crypt cipher_null-ecb - 0 $DISK1 4000"
	dm_moves 65536 write $MAPPER/r${P}a 0 65536 0x5a
	dm_moves 65536 write $MAPPER/r${P}a 65536 65536 0x5a
	dm_expect fe9c457a004410b047aba5067b89c301 "$(sum $RDISK1 1000 64)" xts
	dm_expect 0757fc04fb26d44b36c02d490cfb9ab3 "$(sum $RDISK1 2000 64)" \
	    "sectors of 4096"
	dm_expect d2445ad5a6701a57ce933f1326e9e5d4 "$(sum $RDISK1 3000 64)" essiv
	dm_moves 32768 read $RDISK1 $((4000 * 512)) 32768 0x5a
	dm_moves 65536 read $MAPPER/r${P}a 0 65536 0x5a
	dm_moves 65536 read $MAPPER/r${P}a 65536 65536 0x5a
	dm_make ${P}b "0 64 crypt aes-xts-plain64 $KEY64 7 $DISK1 5000" \
	    "64 64 crypt aes:2-cbc-eboiv $KEY64 9 $DISK1 6000" \
	    "128 64 crypt aes-cbc-plain ${KEY32%????????????????????????????????} 9 $DISK1 7000"
	atf_check $H verify $MAPPER/r${P}b 192 300 5
}

filesystem_descr="a file system on an encrypted device"
dm_test_case filesystem
filesystem_timeout=900
filesystem_body()
{
	dm_need_target crypt
	dm_disk 1
	# A real disk has what another test left there.
	dd if=/dev/zero of=$RDISK1 bs=64k count=160 2>/dev/null || atf_fail "dd"
	line="aes-xts-plain64 $KEY64 0 $DISK1 1024"
	dm_make ${P}a "0 16384 crypt $line"
	dm_newfs $MAPPER/r${P}a
	dm_mount $MAPPER/${P}a mnt
	dm_pattern data 4000
	cp data mnt/data || atf_fail "cp"
	dm_same mounted data mnt/data
	umount $(pwd)/mnt || atf_fail umount
	atf_check -o ignore -e ignore fsck_ffs -fn $MAPPER/r${P}a
	! dm_from $RDISK1 0 20000 | grep -q "sector 1234" ||
	    atf_fail "the component has data as they are"
	# In another spelling, after all has gone.
	atf_check dmctl remove ${P}a
	dm_make ${P}b "0 16384 crypt capi:xts(aes)-plain64 $KEY64 0 $DISK1 1024"
	dm_mount $MAPPER/${P}b mnt
	dm_same "mounted anew" data mnt/data
	umount $(pwd)/mnt || atf_fail umount
	# With another key there is none.
	atf_check dmctl remove ${P}b
	dm_make ${P}c "0 16384 crypt aes-xts-plain64 $OTHER 0 $DISK1 1024"
	mkdir -p mnt
	! mount $MAPPER/${P}c $(pwd)/mnt 2>/dev/null ||
	    atf_fail "a file system without its key"
}

keys_descr="keys go and come while the device is suspended, under load"
dm_test_case keys
keys_timeout=900
keys_body()
{
	dm_need_target crypt
	dm_disk 1
	dm_make ${P}a "0 4000 crypt aes-xts-plain64 $KEY64 0 $DISK1 1024"
	! message ${P}a "key wipe" || atf_fail "wiped while it runs"
	dm_start verify $H verify $MAPPER/r${P}a 4000 300 7
	i=0
	while [ $i -lt 12 ]; do
		atf_check dmctl suspend ${P}a
		message ${P}a "key wipe" || atf_fail "key wipe: $(cat message.out)"
		dm_table ${P}a | grep -q " $(echo $KEY64 | tr 0-9a-f 0) " ||
		    atf_fail "the table: $(dm_table ${P}a)"
		! dmctl resume ${P}a >/dev/null 2>&1 || atf_fail "resumed without a key"
		! message ${P}a "key set $KEY32" || atf_fail "half a key"
		message ${P}a "key set $KEY64" || atf_fail "key set: $(cat message.out)"
		atf_check dmctl resume ${P}a
		i=$((i + 1))
	done
	dm_join verify
	dm_table ${P}a | grep -q " $KEY64 " || atf_fail "$(dm_table ${P}a)"
	! dmesg | grep -q $KEY32 || atf_fail "the console has the key"
}

load_descr="tables with and without encryption follow one another under I/O"
dm_test_case load
load_timeout=900
load_body()
{
	dm_need_target crypt
	dm_disk 1
	# The same sectors in each.
	set -- "0 2000 crypt aes-xts-plain64 $KEY64 0 $DISK1 1024" \
	    "0 2000 crypt capi:xts(aes)-plain64 $KEY64 0 $DISK1 1024 1 no_read_workqueue" \
	    "0 1000 crypt aes-xts-plain64 $KEY64 0 $DISK1 1024
1000 1000 crypt aes-xts-plain64 $KEY64 1000 $DISK1 2024"
	dm_make ${P}a "$1"
	dm_start verify1 $H verify $MAPPER/r${P}a 1000 300 21
	dm_start churn $H churn ${P}a 60 "$1" "$2"
	dm_join churn
	dm_join verify1
	dm_load ${P}a "$3"
	atf_check dmctl resume ${P}a
	atf_check $H verify $MAPPER/r${P}a 2000 100 22
	atf_check dmctl remove ${P}a
}

swap_descr="swap on an encrypted device"
dm_test_case swap
swap_body()
{
	dm_need_target crypt
	dm_disk 1 40000
	dm_swap_on "crypt aes-xts-plain64 $KEY64 0 $DISK1 4096"
}

pressure_descr="paging to an encrypted device while memory is short"
dm_test_case pressure
pressure_timeout=1800
pressure_body()
{
	dm_need_target crypt
	[ -n "$(atf_config_get dm.disks "${DM_DISKS:-}")" ] ||
	    atf_skip "vnd(4) takes memory for I/O: name a disk of 64 MB"
	megabytes=$(($(sysctl -n hw.usermem64) / 1048576))
	[ $megabytes -lt 256 ] || atf_skip "$megabytes MB are too much to fill"
	dm_disk 1
	[ $($H query $RDISK1 | dm_get DIOCGMEDIASIZE) -ge 67108864 ] ||
	    atf_skip "$RDISK1 is smaller than 64 MB"
	dm_make ${P}a "0 131072 crypt aes-xts-plain64 $KEY64 0 $DISK1 0"
	echo $MAPPER/${P}a >dm.swaps
	atf_check -o ignore -e ignore swapctl -a $MAPPER/${P}a
	$H memory >before
	# More than there is, and less than with the swap; it checks what comes back.
	atf_check -o ignore $H hog $(($(dm_get free <before) + 16)) 1
	out=$(($($H memory | dm_get out) - $(dm_get out <before)))
	echo "$out pages out"
	[ $out -gt 1000 ] || atf_fail "too little memory was wanted: $out pages"
	atf_check swapctl -d $MAPPER/${P}a
	atf_check dmctl remove ${P}a
}

atf_init_test_cases()
{
	for test in vectors filesystem keys load swap pressure; do
		atf_add_test_case $test
	done
}
