# SPDX-License-Identifier: BSD-2-Clause
# Shell functions for the tests of LVM; they read subr.sh before this.

VG=${P}vg

# lvm_setup disks [sectors]: a volume group on so many disks.
lvm_setup()
{
	local n=1 paths=
	dm_need
	command -v lvm >/dev/null || atf_skip "no lvm(8)"
	while [ $n -le $1 ]; do
		dm_disk $n ${2:-131072}
		eval paths=\"$paths \$RDISK$n\"
		n=$((n + 1))
	done
	lvm_on $paths
}

# lvm_on character-device ...: a volume group on these, and a configuration that
# sees no others.
lvm_on()
{
	local path accept=
	for path; do
		accept="$accept \"a|^$path\$|\","
	done
	mkdir -p lvm/archive lvm/backup lvm/cache
	cat >lvm/lvm.conf <<-CONF
		devices {
			dir = "/dev"
			scan = [ "/dev" ]
			types = [ "dm", 1 ]
			filter = [$accept "r|.*|" ]
			cache_dir = "$(pwd)/lvm/cache"
		}
		backup {
			backup_dir = "$(pwd)/lvm/backup"
			archive_dir = "$(pwd)/lvm/archive"
		}
		activation { monitoring = 0 }
		global { locking_dir = "$(pwd)/lvm" }
	CONF
	LVM_SYSTEM_DIR=$(pwd)/lvm
	export LVM_SYSTEM_DIR
	[ -c $MAPPER/control ] || dm_mknod $MAPPER/control c 0
	echo $VG >dm.vgs
	lvm_run pvcreate "$@"
	lvm_run vgcreate $VG "$@"
}

# lvm_run command ...: it must succeed; what it says is in the file lvm.out.
lvm_run()
{
	lvm "$@" >lvm.out 2>&1 || atf_fail "$*: $(cat lvm.out)"
}

# Called by dm_cleanup.
dm_lvm_cleanup()
{
	LVM_SYSTEM_DIR=$(pwd)/lvm
	export LVM_SYSTEM_DIR
	lvm vgchange -an $VG >/dev/null 2>&1
	lvm vgremove -ff $VG >/dev/null 2>&1
	rm -rf /dev/$VG $MAPPER/$VG-* $MAPPER/r$VG-*
}

# The device of a logical volume, block and character.
lv_block()
{
	echo $MAPPER/$VG-$1
}

lv_char()
{
	echo $MAPPER/r$VG-$1
}
