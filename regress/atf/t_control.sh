# SPDX-License-Identifier: BSD-2-Clause
# The ioctl contract: every command of dmctl(8), its answers and its errors.

. $(atf_get_srcdir)/subr.sh

version_descr="version and targets answer, and other versions are refused"
dm_test_case version
version_body()
{
	dm_need
	atf_check -o match:"Kernel protocol version 4:16:" dmctl version
	dmctl targets >targets || atf_fail targets
	for target in linear striped zero error; do
		grep -q "^Target name: $target\$" targets ||
		    atf_fail "no target $target"
	done
	for version in 4.0.0 4.1.0 4.16.0 none; do
		atf_check -o ignore $H ioctl -V $version command=version
	done
	for version in 3.0.0 5.0.0 4.17.0; do
		dm_refuse EIO ioctl -V $version command=version
	done
}

life_descr="a device from create to remove, as dmctl(8) sees it"
dm_test_case life
life_body()
{
	dm_need
	dm_disk 1
	atf_check dmctl create ${P}a
	atf_check -o match:"Device name: ${P}a," dmctl ls
	atf_check -o match:"Device target number: 	0" dmctl info ${P}a
	echo "0 1000 linear $DISK1 4096" >table
	atf_check dmctl reload ${P}a <table
	atf_check -o not-match:linear dmctl table ${P}a
	atf_check dmctl resume ${P}a
	atf_check -o match:"^ *0 *1000 linear\$" dmctl table ${P}a
	atf_check -o match:"^ *0 *1000 linear\$" dmctl status ${P}a
	atf_check -o match:"^major: [0-9]+ minor: [0-9]+" dmctl deps ${P}a
	atf_check dmctl suspend ${P}a
	atf_check dmctl resume ${P}a
	atf_check dmctl rename ${P}a ${P}b
	atf_check -o match:"${P}b" -o not-match:"${P}a" dmctl ls
	atf_check dmctl remove ${P}b
	atf_check -o not-match:"${P}" dmctl ls
}

replies_descr="the keys and flags of replies"
dm_test_case replies
replies_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 1000 linear $DISK1 4096"
	$H ioctl command=info name=${P}a mine=stays odd:7 >reply ||
	    atf_fail info
	for key in name uuid minor flags open_count target_count event_nr; do
		grep -q "^$key=" reply || atf_fail "no $key in the reply"
	done
	dm_expect stays "$(dm_get mine <reply)" "an unknown key"
	dm_expect "4 16 0" "$(echo $(dm_get 'version\..' <reply) | while read v
	    do for n in $v; do printf '%d ' $n; done; done | sed 's/ $//')" version
	# EXISTS and ACTIVE_PRESENT
	dm_expect $((0x24)) $(($(dm_get flags <reply))) flags
	dm_load ${P}a "0 1000 zero"
	$H ioctl command=suspend name=${P}a flags:2 >reply || atf_fail suspend
	dm_expect $((0x66)) $(($(dm_get flags <reply))) "flags, suspended"
	$H ioctl command=table name=${P}a flags:0x1010 >reply ||
	    atf_fail "inactive table"
	dm_expect zero "$(dm_get cmd_data.0.type <reply)" "the inactive table"
	atf_check -o ignore $H ioctl command=clear name=${P}a
	$H ioctl command=resume name=${P}a >reply || atf_fail resume
	dm_expect $((0x24)) $(($(dm_get flags <reply))) "flags, resumed"
	# Nothing is lost by a resume with nothing to resume.
	dm_expect linear "$($H ioctl command=status name=${P}a |
	    dm_get cmd_data.0.type)" "the table after an empty resume"
	# The minor wins over the name, and the name over the uuid.
	dm_make ${P}b "0 10 zero"
	minor=$($H ioctl command=info name=${P}b | dm_get minor)
	dm_expect ${P}b "$($H ioctl command=info name=${P}a minor:$minor |
	    dm_get name)" "name and minor"
	dm_expect ${P}a "$($H ioctl command=info name=${P}a uuid=none |
	    dm_get name)" "name and uuid"
}

questions_descr="a question about a device that does not exist is no error"
dm_test_case questions
questions_body()
{
	dm_need
	for command in info mknodes status table deps; do
		$H ioctl command=$command name=${P}none flags:4 >reply ||
		    atf_fail "$command: $(cat reply)"
		dm_expect 0 $(($(dm_get flags <reply) & 4)) "$command: EXISTS"
		atf_check -s exit:1 grep -q '^minor=' reply
	done
	for command in reload resume suspend clear remove; do
		dm_refuse ENXIO ioctl command=$command name=${P}none data
	done
	dm_refuse ENXIO ioctl command=rename name=${P}none word=${P}other
	atf_check -s exit:1 -e match:"Device not configured" \
	    dmctl remove ${P}none
}

create_errors_descr="names that cannot be, or are taken"
dm_test_case create_errors
create_errors_body()
{
	dm_need
	long=$(printf '%0125d' 0)
	dm_refuse EINVAL ioctl command=create
	dm_refuse EINVAL ioctl command=create name=
	dm_refuse EINVAL ioctl command=create name=${P}/a
	dm_refuse EINVAL ioctl command=create name=$P$long
	dm_refuse EINVAL ioctl command=create name=${P}a uuid=$long$long
	dm_refuse EINVAL ioctl command=create name:5
	atf_check -o ignore $H ioctl command=create name=${P}a uuid=${P}uuid
	dm_refuse EEXIST ioctl command=create name=${P}a
	dm_refuse EEXIST ioctl command=create name=${P}b uuid=${P}uuid
	atf_check -s exit:1 -e match:"File exists" dmctl create ${P}a
	dm_expect 1 $(dmctl ls | grep -c "name: $P") "devices"
	# 127 characters are not too many.
	name=$P$(printf '%0122d' 0)
	atf_check -o ignore $H ioctl command=create name=$name
	atf_check -o ignore $H ioctl command=remove name=$name
	# PERSISTENT_DEV
	dm_expect 77 $(($($H ioctl command=create name=${P}m flags:8 \
	    minor:77 | dm_get minor))) "a minor of one's own choice"
	dm_refuse EBUSY ioctl command=create name=${P}n flags:8 minor:77
}

rename_descr="rename: taken names, its own name, a first uuid"
dm_test_case rename
rename_body()
{
	dm_need
	dm_disk 1
	dm_make ${P}a "0 100 linear $DISK1 4096"
	dm_make ${P}b "0 200 zero"
	dm_refuse EEXIST ioctl command=rename name=${P}a word=${P}b
	atf_check -o match:"^ *0 *100 linear" dmctl table ${P}a
	atf_check -o match:"^ *0 *200 zero" dmctl table ${P}b
	dm_refuse EINVAL ioctl command=rename name=${P}a
	dm_refuse EINVAL ioctl command=rename name=${P}a data
	dm_refuse EINVAL ioctl command=rename name=${P}a word=
	dm_start verify $H verify $MAPPER/r${P}a 100 2000 1
	for i in 1 2 3 4 5 6 7 8; do
		atf_check -o ignore $H ioctl command=rename name=${P}a \
		    word=${P}a
	done
	dm_join verify
	atf_check -o ignore $H ioctl command=rename name=${P}a \
	    flags:0x4000 word=${P}uuid
	dm_expect ${P}a "$($H ioctl command=info uuid=${P}uuid | dm_get name)" \
	    "found by uuid"
	dm_refuse EINVAL ioctl command=rename name=${P}a flags:0x4000 word=other
	dm_refuse EEXIST ioctl command=rename name=${P}b flags:0x4000 \
	    word=${P}uuid
}

malformed_descr="dictionaries that no tool would send"
dm_test_case malformed
malformed_body()
{
	dm_need
	atf_check dmctl create ${P}a
	dm_refuse EINVAL ioctl name=${P}a
	dm_refuse EINVAL ioctl command=nonsense name=${P}a
	dm_refuse EINVAL ioctl command:5 name=${P}a
	dm_refuse EINVAL ioctl -V none version=4.0.0 command=version
	dm_refuse EINVAL ioctl command=info name=${P}a flags=text
	dm_refuse EINVAL ioctl command=info name=${P}a minor=text
	dm_refuse EINVAL ioctl command=info minor:-1
	dm_refuse EINVAL ioctl command=reload name=${P}a
	dm_refuse EINVAL ioctl command=reload name=${P}a cmd_data=text
	dm_refuse EINVAL ioctl command=reload name=${P}a word=text
	for keys in "" \
	    "<key>start</key><integer>0</integer>" \
	    "<key>length</key><integer>8</integer>" \
	    "<key>start</key><integer>0</integer><key>length</key><integer>8</integer>"; do
		for rest in "" "<key>type</key><string>zero</string>" \
		    "<key>type</key><string>zero</string><key>params</key><string></string>"; do
			case "$keys$rest" in *start*length*params*) continue;; esac
			dm_refuse EINVAL ioctl command=reload name=${P}a \
			    raw="<key>cmd_data</key><array><dict>$keys$rest</dict></array>"
		done
	done
	$H noise 1 >noise.out && atf_fail "noise taken"
	$H noise 1000 >noise.out && atf_fail "noise taken"
	$H noise 1000000 >noise.out && atf_fail "noise taken"
	atf_check -o match:"Device target number: 	0" dmctl info ${P}a
}

# nest depth: an array in an array, and so on.
nest()
{
	local open= close= n=0
	while [ $n -lt $1 ]; do
		open="$open<array>" close="$close</array>" n=$((n + 1))
	done
	echo "$open$close"
}

nesting_descr="requests so deep that a reply would take more than the kernel's stack"
dm_test_case nesting
nesting_body()
{
	dm_need
	# With the dictionary, 16 in one another.
	atf_check -o ignore $H ioctl command=version raw="<key>x</key>$(nest 15)"
	for depth in 16 17 100 1000 3000; do
		dm_refuse EINVAL ioctl command=version \
		    raw="<key>x</key>$(nest $depth)"
		dm_refuse EINVAL ioctl command=create name=${P}a \
		    raw="<key>x</key>$(nest $depth)"
	done
	atf_check -o not-match:"${P}" dmctl ls
}

wild_descr="thousands of requests of all kinds, good ones among them"
dm_test_case wild
wild_body()
{
	dm_need
	dmctl ls >before
	for seed in 1 2 3 4; do
		dm_start wild$seed $H wild ${P} 2000 $seed
	done
	for seed in 1 2 3 4; do
		dm_join wild$seed
		grep -q "some were good" wild$seed.out || atf_fail "no good ones"
	done
	# A second name in a request may be anything: these have no prefix.
	dmctl ls | grep -v -x -F -f before | sed 's/.*minor: \([0-9]*\).*/\1/' >left
	for minor in $(cat left); do
		atf_check -o ignore $H ioctl command=remove minor:$minor
	done
	dmctl ls >after
	dm_same "the machine's own devices" before after
}

nodes_descr="which node takes which ioctl, and who may send it"
dm_test_case nodes
nodes_body()
{
	dm_need
	dm_make ${P}a "0 100 zero"
	dm_refuse ENOTTY ioctl -N $MAPPER/r${P}a command=version
	atf_check -o match:"DIOCGMEDIASIZE=ENOTTY" $H query $MAPPER/control
	# Questions may be asked through a descriptor that cannot write.
	atf_check -o ignore $H ioctl -r command=info name=${P}a
	dm_refuse EBADF ioctl -r command=remove name=${P}a
	dm_refuse EBADF ioctl -r command=create name=${P}b
	# A minor that no device has.
	dm_mknod $MAPPER/${P}none b 65000
	dm_mknod $MAPPER/r${P}none c 65000
	dm_refuse ENXIO open $MAPPER/${P}none r
	dm_refuse ENXIO open $MAPPER/r${P}none w
}

events_descr="waitevent, message, setgeometry, remove_all, deferred remove"
dm_test_case events
events_body()
{
	dm_need
	dm_make ${P}a "0 100000 zero"
	event=$($H ioctl command=info name=${P}a | dm_get event_nr)
	dm_start waiter $H ioctl command=waitevent name=${P}a event_nr:$event
	# A change of the table is none, another name is.
	dm_load ${P}a "0 50000 zero"
	atf_check dmctl resume ${P}a
	dm_expect $event $($H ioctl command=info name=${P}a | dm_get event_nr) \
	    event_nr
	atf_check dmctl rename ${P}a ${P}b
	dm_join waiter
	atf_check dmctl rename ${P}b ${P}a
	dm_expect $((event + 1)) $(($(dm_get event_nr <waiter.out))) event_nr
	dm_refuse EINVAL ioctl command=message name=${P}a message=nonsense \
	    sector:0
	dm_refuse EINVAL ioctl command=setgeometry name=${P}a geometry=nonsense
	atf_check -o ignore $H ioctl command=setgeometry name=${P}a \
	    "geometry=7 8 9 0"
	# Removed while open: at the last close, if so wanted.
	dm_refuse EBUSY open $MAPPER/r${P}a r $H ioctl command=remove name=${P}a
	atf_check -o match:"Device name: ${P}a," dmctl ls
	atf_check -o ignore $H open $MAPPER/r${P}a r $H ioctl command=remove \
	    name=${P}a flags:0x20000
	atf_check -o not-match:"Device name: ${P}a," dmctl ls
}

legacy_descr="hw.dm.legacy_errors has commands fail in silence"
dm_test_case legacy
legacy_body()
{
	dm_need
	sysctl -n hw.dm.legacy_errors >/dev/null 2>&1 || atf_skip "no hw.dm"
	atf_check -o ignore sysctl -w hw.dm.legacy_errors=1
	atf_check dmctl remove ${P}none
	atf_check -o ignore $H ioctl command=nonsense
	atf_check -o ignore sysctl -w hw.dm.legacy_errors=0
	atf_check -s exit:1 -e ignore dmctl remove ${P}none
	atf_check -s not-exit:0 -o ignore -e ignore sysctl -w hw.dm.label_guard=3
	atf_check -s not-exit:0 -o ignore -e ignore sysctl -w hw.dm.devices=3
}

storm_descr="several processes create, load, resume and remove the same devices"
storm_timeout=900
dm_test_case storm
storm_body()
{
	dm_need
	dm_disk 1
	atf_check $H storm ${P}s 4 500 "0 1000 linear $DISK1 4096" 1
}

leak_descr="failures and questions leave no memory behind"
dm_test_case leak
leak_body()
{
	dm_need
	atf_check dmctl create ${P}a
	for round in 1 2; do
		$H ioctl -n 2000 command=deps name=${P}none >/dev/null
		$H ioctl -n 2000 command=info name=${P}a >/dev/null
		i=0
		while [ $i -lt 100 ]; do
			$H ioctl command=create name=${P}a >/dev/null
			$H ioctl command=reload name=${P}a \
			    "line=0 100 striped 2 8 /dev/none 0 /dev/none 0" \
			    >/dev/null
			i=$((i + 1))
		done
		# Items in use, in all pools of the driver's allocations.
		vmstat -m | awk '$1 ~ /^(kmem-|dm|prop)/ { used += $3 - $5 }
		    END { print used + 0 }' >used.$round
	done
	grown=$(($(cat used.2) - $(cat used.1)))
	# 4000 questions and 200 failures: what one of them left would show.
	[ $grown -lt 150 ] || atf_fail "$grown more items in use"
}

dmsetup_descr="dmsetup(8) says what failed, even if it aborts afterwards"
dm_test_case dmsetup
dmsetup_body()
{
	dm_need
	command -v dmsetup >/dev/null || atf_skip "no dmsetup(8)"
	# It may end by abort(3): libdm releases an object twice after an error.
	ulimit -c 0
	dm_disk 1
	# A table that is refused leaves a device without a table behind.
	echo "0 8 linear /dev/none 0" |
	    dmsetup create ${P}a >out 2>&1 && atf_fail "a refused table: $(cat out)"
	[ -s out ] || atf_fail "nothing was said"
	echo "0 8 zero" |
	    dmsetup create ${P}a >out 2>&1 && atf_fail "the name was free"
	atf_check -o ignore dmctl remove ${P}a
	# Nothing goes that is in use.
	atf_check dmctl create ${P}a
	dm_load ${P}a "0 8192 linear $DISK1 128"
	atf_check dmctl resume ${P}a
	dm_nodes ${P}a
	sleep 1000 <$MAPPER/${P}a &
	holder=$!
	dmsetup remove ${P}a >out 2>&1 && atf_fail "removed while open"
	atf_check -o match:${P}a dmctl ls
	kill $holder
	wait $holder 2>/dev/null
	atf_check -o ignore dmctl remove ${P}a
}

atf_init_test_cases()
{
	for test in version life replies questions create_errors rename \
	    malformed nesting wild nodes events legacy storm leak dmsetup; do
		atf_add_test_case $test
	done
}
