# The driver as a module.  Skipped where it is built in, and where there is no
# module to load: the kernel's own dm, or the file named by DM_KMOD in the
# environment or dm.kmod in the test suite's configuration.

. $(atf_get_srcdir)/subr.sh

load_descr="load, use, refuse to go while in use, unload, again"
dm_test_case load
load_body()
{
	kmod=$(atf_config_get dm.kmod "${DM_KMOD:-dm}")
	was_loaded=no
	# Only what was loaded from a file is unloaded: a driver that is built in
	# would be gone until the next boot.
	if modstat | awk '$1 == "dm" {
		for (i = 2; i <= NF; i++) if ($i == "filesys") found = 1
	    } END { exit !found }'; then
		modunload dm >out 2>&1 || atf_skip "dm is in use: $(cat out)"
		was_loaded=yes
	elif [ -n "$(dm_major c)" ]; then
		atf_skip "dm is built in"
	fi
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

atf_init_test_cases()
{
	atf_add_test_case load
}
