# SPDX-License-Identifier: BSD-2-Clause
# The driver as a module.  Skipped where it is built in, and where there is no
# module to load: the kernel's own dm, or the file named by DM_KMOD in the
# environment or dm.kmod in the test suite's configuration.

. $(atf_get_srcdir)/subr.sh

# module_need: a module to load, which is not loaded; sets kmod and was_loaded.
module_need()
{
	kmod=$(atf_config_get dm.kmod "${DM_KMOD:-dm}")
	was_loaded=no
	[ -c $MAPPER/control ] || dm_mknod $MAPPER/control c 0
	# No driver: kern.drivers has its name and numbers all the same.
	dmctl version >/dev/null 2>&1 || return 0
	# Only what was loaded from a file is unloaded: a driver that is built in
	# would be gone until the next boot.
	modstat | awk '$1 == "dm" {
		for (i = 2; i <= NF; i++) if ($i == "filesys") found = 1
	    } END { exit !found }' || atf_skip "dm is built in"
	modunload dm >out 2>&1 || atf_skip "dm is in use: $(cat out)"
	was_loaded=yes
}

load_descr="load, use, refuse to go while in use, unload, again"
dm_test_case load
load_body()
{
	module_need
	for round in 1 2 3; do
		modload $kmod >out 2>&1 || atf_skip "modload $kmod: $(cat out)"
		dm_need
		[ $round -gt 1 ] || dm_disk 1
		dm_make ${P}a "0 8000 linear $DISK1 5000"
		atf_check -s exit:1 -e match:busy modunload dm
		[ $round -gt 1 ] || dm_newfs $MAPPER/r${P}a
		dm_mount $MAPPER/${P}a mnt
		atf_check -s exit:1 -e match:busy modunload dm
		[ $round -eq 1 ] || dm_same "kept from before" data mnt/data
		dm_pattern data 500
		cp data mnt/data
		atf_check umount $(pwd)/mnt
		atf_check dmctl remove ${P}a
		atf_check -s exit:1 -e match:busy \
		    $H open $MAPPER/control r modunload dm
		atf_check modunload dm
		atf_check -s exit:1 -o ignore -e ignore dmctl version
	done
	[ $was_loaded = no ] || modload $kmod
}

threads_descr="unload while lanes wait, are busy, and have just ended"
threads_timeout=600
dm_test_case threads
threads_body()
{
	module_need
	for round in 1 2 3 4 5; do
		modload $kmod >out 2>&1 || atf_skip "modload $kmod: $(cat out)"
		dm_need
		[ $round -gt 1 ] || dm_disk 1
		dm_make ${P}a "0 2000 delay $DISK1 5000 3600000"
		dm_make ${P}b "0 2000 delay $DISK1 7000 1" "2000 100 error"
		dm_start waits $H read $MAPPER/r${P}a 0 65536
		dm_start works $H verify $MAPPER/r${P}b 2000 60 $round
		dm_start fails $H read $MAPPER/r${P}b 1024000 512
		dm_delayed ${P}a
		atf_check -s exit:1 -e match:busy modunload dm
		atf_check dmctl suspend ${P}a
		dm_join waits
		dm_join works
		dm_over fails
		atf_check -s exit:1 -e match:busy modunload dm
		# One goes with its table, the other lost its lanes before.
		dm_load ${P}b "0 2000 linear $DISK1 7000"
		atf_check dmctl resume ${P}b
		atf_check dmctl remove ${P}a
		atf_check dmctl remove ${P}b
		atf_check modunload dm
	done
	[ $was_loaded = no ] || modload $kmod
}

atf_init_test_cases()
{
	for test in load threads; do
		atf_add_test_case $test
	done
}
