// SPDX-License-Identifier: BSD-2-Clause

//! lvm(8): volumes from pvcreate to vgremove, with file systems in them.

use crate::session::{Disks, has, has_blocks, nothing_is_left};

const TOOLS: &[&str] = &["lvm", "mkfs.ext4", "e2fsck", "resize2fs"];

#[test]
fn linear_volumes_from_creation_to_removal() {
    if !has_blocks() || !has(TOOLS) {
        return;
    }
    let disks = Disks::new(96);
    let loop_devices = || std::path::Path::new("/sys/block/loop60").exists();
    let before = loop_devices();
    let out = disks
        .script(
            "q() { \"$@\" >log 2>&1 || { cat log; exit 1; }; }
             q lvm pvcreate /dev/wd0 /dev/wd1
             q lvm vgcreate vg /dev/wd0 /dev/wd1
             q lvm lvcreate -L64M -n a vg
             q mkfs.ext4 -q /dev/vg/a
             mount /dev/vg/a mnt; seq 1000000 >mnt/numbers; sum=$(md5sum <mnt/numbers)
             # Extended under the mounted file system, over both disks.
             q lvm lvextend -L128M vg/a
             blockdev --getsize64 /dev/vg/a
             lvm lvs --noheadings -o seg_count vg/a | tr -d ' '
             test \"$sum\" = \"$(md5sum <mnt/numbers)\"
             lvm lvchange -an vg/a >log 2>&1 && exit 1; grep -c 'in use' log
             umount mnt; q e2fsck -fy /dev/vg/a; q resize2fs /dev/vg/a
             # Reduced.
             q resize2fs /dev/vg/a 40M; q lvm lvreduce -f -L40M vg/a
             q e2fsck -fn /dev/vg/a
             q lvm lvrename vg a b
             q lvm vgchange -an vg; dmsetup ls
             q lvm vgchange -ay vg; dmsetup info -c --noheadings -o name,attr,open
             mount /dev/vg/b mnt; test \"$sum\" = \"$(md5sum <mnt/numbers)\"; umount mnt
             q lvm vgrename vg other
             dmsetup ls | cut -f1
             q lvm lvremove -f other/b; q lvm vgremove other; q lvm pvremove /dev/wd0 /dev/wd1
             lvm pvs --noheadings; dmsetup ls",
        )
        .ok();
    let expected = "\
134217728
2
1
No devices found
vg-b:L--w:0
other-b
No devices found
";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
    // LVM opens every node that it finds, which makes a loop device where there was none.
    assert_eq!(loop_devices(), before);
}

#[test]
fn striped_volumes() {
    if !has_blocks() || !has(TOOLS) {
        return;
    }
    let disks = Disks::new(64);
    let out = disks
        .script(
            "q() { \"$@\" >log 2>&1 || { cat log; exit 1; }; }
             q lvm vgcreate vg /dev/wd0 /dev/wd1
             q lvm lvcreate -i2 -I16k -L48M -n s vg
             dmsetup table vg-s | cut -d' ' -f1-5
             q mkfs.ext4 -q /dev/vg/s; mount /dev/vg/s mnt
             seq 1000000 >mnt/numbers; sum=$(md5sum <mnt/numbers)
             q lvm lvextend -L64M vg/s; dmsetup table vg-s | cut -d' ' -f1-5
             test \"$sum\" = \"$(md5sum <mnt/numbers)\"; umount mnt
             q e2fsck -fy /dev/vg/s
             q lvm lvcreate -i2 -L16M --readahead none -pr -n r vg
             dmsetup info -c --noheadings -o name,attr vg-r
             q lvm lvremove -f vg; q lvm vgremove vg",
        )
        .ok();
    let expected = "0 98304 striped 2 32\n0 131072 striped 2 32\nvg-r:L--r\n";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
}

/// The content of a volume is there in the next session, which finds the volume.
#[test]
fn volumes_outlive_a_session() {
    if !has_blocks() || !has(TOOLS) {
        return;
    }
    let disks = Disks::new(64);
    let quiet = "q() { \"$@\" >log 2>&1 || { cat log; exit 1; }; }\n";
    let first = "q lvm vgcreate vg /dev/wd0 /dev/wd1; q lvm lvcreate -L100M -n a vg
         q mkfs.ext4 -q /dev/vg/a; mount /dev/vg/a mnt; seq 500000 >mnt/numbers
         md5sum <mnt/numbers >sum";
    // The session's end unmounts.
    disks.script(&format!("{quiet}{first}")).ok();
    nothing_is_left(&disks.folder, "none");
    let second = "q lvm vgchange -ay vg; q e2fsck -fn /dev/vg/a; mount -r /dev/vg/a mnt
         md5sum <mnt/numbers | cmp - sum";
    disks.script(&format!("{quiet}{second}")).ok();
}
