# SPDX-License-Identifier: BSD-2-Clause
# Tables that are refused: with the right error, and without a change.

. $(atf_get_srcdir)/subr.sh

# refused ERRNO line ...: reload must fail so.
refused()
{
	local errno=$1 line
	shift
	set -- "$@"
	for line; do
		set -- "$@" "line=$line"
		shift
	done
	dm_refuse $errno ioctl command=reload name=${P}a "$@"
}

linear_descr="parameters of linear"
dm_test_case linear
linear_body()
{
	dm_need
	dm_disk 1
	atf_check dmctl create ${P}a
	refused EINVAL "0 100 linear "
	refused EINVAL "0 100 linear $DISK1"
	refused EINVAL "0 100 linear $DISK1 0 0"
	for offset in abc -5 18446744073709551621 1x 0x10 ""; do
		refused EINVAL "0 100 linear $DISK1 $offset"
	done
	refused ENOENT "0 100 linear /dev/${P}none 0"
	refused ENOENT "0 100 nonsense $DISK1 0"
	refused ENOTBLK "0 100 linear /dev/null 0"
	touch file
	refused ENOTBLK "0 100 linear $(pwd)/file 0"
	# Beyond the end of the component, by one sector.
	size=$(($($H query $RDISK1 | dm_get DIOCGMEDIASIZE) / 512))
	refused EINVAL "0 101 linear $DISK1 $((size - 100))"
	refused EINVAL "0 100 linear $DISK1 18446744073709551615"
	dm_load ${P}a "0 100 linear $DISK1 $((size - 100))"
}

striped_descr="parameters of striped"
dm_test_case striped
striped_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	atf_check dmctl create ${P}a
	for params in "" "2" "2 8" "0 8" "2 0 $DISK1 0 $DISK2 0" \
	    "256 8 $DISK1 0 $DISK2 0" "3 8 $DISK1 0 $DISK2 0" \
	    "1 8 $DISK1 0 $DISK2 0" "2 8 $DISK1 0 $DISK2" \
	    "2 8 $DISK1 x $DISK2 0" "-2 8 $DISK1 0 $DISK2 0"; do
		refused EINVAL "0 160 striped $params"
	done
	refused E2BIG "0 160 striped 4294967298 8 $DISK1 0 $DISK2 0"
	refused EINVAL "0 161 striped 2 8 $DISK1 0 $DISK2 0"
	refused EINVAL "0 24 striped 2 8 $DISK1 0 $DISK2 0"
	refused ENOENT "0 160 striped 2 8 $DISK1 0 /dev/${P}none 0"
	refused ENOENT "0 160 striped 2 8 /dev/${P}none 0 /dev/${P}none 0"
	# Many stripes are no error.
	stripes=
	for i in 0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15; do
		stripes="$stripes $DISK1 $((4096 + 16 * i))"
	done
	dm_load ${P}a "0 256 striped 16 8$stripes"
}

lines_descr="lines that overlap, leave a gap, or do not add up"
dm_test_case lines
lines_body()
{
	dm_need
	dm_disk 1
	atf_check dmctl create ${P}a
	refused EINVAL "0 100 zero" "50 100 zero"
	refused EINVAL "0 100 zero" "0 100 zero"
	refused EINVAL "0 100 zero" "101 100 zero"
	refused EINVAL "1 100 zero"
	refused EINVAL "0 0 zero"
	refused EINVAL "0 0xffffffffffffffff zero"
	refused EINVAL "36028797018963968 100 zero"
	refused EINVAL "0 36028797018963968 zero" \
	    "36028797018963968 36028797018963968 zero"
	refused EINVAL "0 100 zero parameter"
	dm_refuse EINVAL ioctl command=reload name=${P}a data
	# In any order, when they fit together.
	dm_load ${P}a "100 50 error whatever was there" "0 100 zero" \
	    "150 50 linear $DISK1 4096"
	atf_check dmctl resume ${P}a
	dm_expect "0 zero 100 error 150 linear" "$(echo $(dm_table ${P}a |
	    awk '{ print $1, $3 }'))" "the order of lines"
}

unchanged_descr="a reload that fails leaves both tables as they were"
dm_test_case unchanged
unchanged_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 100 linear $DISK1 4096"
	dm_load ${P}a "0 200 zero"
	refused EINVAL "0 300 zero" "200 300 zero"
	refused ENOENT "0 300 zero" "300 300 linear /dev/${P}none 0"
	dm_expect 100 "$(dm_table ${P}a | awk '{ print $2 }')" "the active table"
	atf_check dmctl resume ${P}a
	dm_expect "0 200 zero" "$(dm_table ${P}a)" "the table that was inactive"
	# And by way of dmctl(8).
	echo "0 300 linear /dev/${P}none 0" >table
	atf_check -s exit:1 -e match:"No such file" dmctl reload ${P}a <table
}

again_descr="what table prints loads again, with a long path too"
dm_test_case again
again_body()
{
	dm_need
	dm_disk 1
	dm_disk 2
	long=/dev/$P-$(printf '%0150d' 0)
	cp -R $DISK1 $long || atf_fail "cp -R"
	echo $long >>dm.nodes
	dm_make ${P}a "0 160 striped 2 8 $DISK1 4096 $DISK2 4096" \
	    "160 100 linear $long 5000" "260 10 zero" "270 10 error"
	dm_table ${P}a >first
	atf_check -o match:"^160 100 linear [0-9]+:[0-9]+ 5000\$" cat first
	dm_load ${P}a "0 5 zero"
	atf_check dmctl reload ${P}a <first
	atf_check dmctl resume ${P}a
	dm_table ${P}a >second
	dm_same "table, reload, table" first second
	# Both names of the disk are one component, and a second device may
	# use it as well.
	dm_expect 2 $(dmctl deps ${P}a | grep -c major) deps
	dm_make ${P}b "0 100 linear $long 6000"
}

loop_descr="tables that lead to themselves"
dm_test_case loop
loop_body()
{
	dm_need
	dm_make ${P}a "0 1000 zero"
	refused ELOOP "0 100 linear $MAPPER/${P}a 0"
	dm_make ${P}b "0 100 linear $MAPPER/${P}a 0"
	refused ELOOP "0 100 linear $MAPPER/${P}b 0"
	dm_make ${P}c "0 100 linear $MAPPER/${P}b 0"
	refused ELOOP "0 100 linear $MAPPER/${P}c 0"
	# A device that another uses stays.
	atf_check -s exit:1 -e match:busy dmctl remove ${P}a
	atf_check -s exit:1 -e match:busy dmctl remove ${P}b
	atf_check dmctl remove ${P}c
	atf_check dmctl remove ${P}b
	atf_check dmctl remove ${P}a
}

busy_descr="a component that something else holds"
dm_test_case busy
busy_body()
{
	dm_need
	dm_disk 1
	dm_newfs $RDISK1
	dm_mount $DISK1 mnt
	atf_check dmctl create ${P}a
	refused EBUSY "0 100 linear $DISK1 4096"
	atf_check umount $(pwd)/mnt
	dm_load ${P}a "0 100 linear $DISK1 4096"
	# And the other way round.
	atf_check -s not-exit:0 -e ignore mount $DISK1 $(pwd)/mnt
}

many_descr="as many lines as one request can hold"
dm_test_case many
many_body()
{
	dm_need
	atf_check dmctl create ${P}a
	awk 'BEGIN { for (i = 0; i < 300; i++)
	    print i * 8, 8, i % 2 ? "zero" : "error" }' >table
	atf_check dmctl reload ${P}a <table
	atf_check dmctl resume ${P}a
	dm_expect 300 "$(dmctl table ${P}a | grep -c -e zero -e error)" lines
}

parts_descr="a table too large for one request comes in several"
dm_test_case parts
parts_body()
{
	dm_need
	more=$($H ioctl command=version | dm_get features.0.reload_more)
	[ -n "$more" ] || atf_skip "no reload in parts"
	atf_check dmctl create ${P}a
	atf_check $H parts ${P}a $more "0 8 zero" "8 8 error" "16 8 zero" \
	    "24 8 error"
	atf_check dmctl resume ${P}a
	dm_expect "0 8 16 24" "$(echo $(dm_table ${P}a | awk '{ print $1 }'))" \
	    "lines from four requests"
	# What another process sent is no part of one's own table.
	atf_check -o ignore $H ioctl command=reload name=${P}a flags:$more \
	    "line=0 8 zero"
	dm_refuse EINVAL ioctl command=reload name=${P}a "line=8 8 error"
}

atf_init_test_cases()
{
	for test in linear striped lines unchanged again loop busy many parts; do
		atf_add_test_case $test
	done
}
