// SPDX-License-Identifier: BSD-2-Clause

//! Devices as block devices: for programs that know nothing of the device mapper.

use crate::session::{Disks, has, has_blocks, nothing_is_left};

#[test]
fn data_goes_where_the_table_says() {
    if !has_blocks() {
        return;
    }
    let disks = Disks::new(4);
    let out = disks
        .script(
            "printf '0 64 linear /dev/wd0 8\\n64 64 linear /dev/wd1 16\\n' | dmsetup create one
             blockdev --getsz --getss --getro /dev/mapper/one
             seq 100000 | head -c 65536 >pattern
             dd if=pattern of=/dev/mapper/one bs=64k oflag=direct status=none
             cmp pattern /dev/mapper/one
             stat -c '%F %a' /dev/mapper/one; ls -l /dev/dm-1 | wc -l
             dmsetup suspend one; dmsetup load -r one --table '0 64 linear /dev/wd0 8'
             dmsetup resume one; blockdev --getsz --getro /dev/mapper/one
             dd if=/dev/zero of=/dev/mapper/one count=1 status=none 2>/dev/null || echo refused
             head -c 32768 pattern | cmp - /dev/mapper/one",
        )
        .ok();
    assert_eq!(out, "128\n512\n0\nblock special file 660\n1\n64\n1\nrefused\n");
    // The disks' files have it, at the places that the table named.
    let read = |name: &str| std::fs::read(disks.folder.path(name)).expect("a file");
    let pattern = read("pattern");
    assert_eq!(read("wd0")[8 * 512..][..32768], pattern[..32768]);
    assert_eq!(read("wd1")[16 * 512..][..32768], pattern[32768..]);
    assert!(read("wd0")[..8 * 512].iter().all(|byte| *byte == 0));
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn errors_of_a_target_reach_the_reader() {
    if !has_blocks() {
        return;
    }
    let disks = Disks::new(4);
    let out = disks
        .script(
            "printf '0 64 linear /dev/wd0 0\\n64 64 error\\n' | dmsetup create one
             dd if=/dev/mapper/one of=/dev/null bs=512 count=64 iflag=direct status=none
             dd if=/dev/mapper/one of=/dev/null bs=512 skip=64 count=1 iflag=direct status=none 2>&1 |
                 grep -c 'Input/output error'",
        )
        .ok();
    assert_eq!(out, "1\n");
}

#[test]
fn a_device_in_use_stays() {
    if !has_blocks() || !has(&["mkfs.ext4"]) {
        return;
    }
    let disks = Disks::new(16);
    let out = disks
        .script(
            "open() { dmsetup info -c --noheadings -o open one; }
             dmsetup create one --table '0 16384 linear /dev/wd0 0'
             mkfs.ext4 -q /dev/mapper/one
             open
             mount /dev/mapper/one mnt; open
             dmsetup remove one 2>/dev/null || echo busy
             exec 3</dev/mapper/one; open; exec 3<&-
             dmsetup remove --deferred one; dmsetup info -c --noheadings -o name,open
             cp /etc/passwd mnt/; sync; cmp /etc/passwd mnt/passwd
             umount mnt
             while dmsetup info one >/dev/null 2>&1; do sleep 0.01; done
             dmsetup ls
             dmsetup create again --table '0 16384 linear /dev/wd0 0'
             mount /dev/mapper/again mnt; cmp /etc/passwd mnt/passwd",
        )
        .ok();
    assert_eq!(out, "0\n1\nbusy\n2\none:1\nNo devices found\n");
    nothing_is_left(&disks.folder, "none");
}

/// A removal at the last close is called off while somebody has the device open, who keeps it.
#[test]
fn a_removal_that_is_called_off_leaves_the_device_in_use() {
    if !has_blocks() {
        return;
    }
    let disks = Disks::new(4);
    let out = disks
        .script(
            "dmsetup create one --table '0 8192 linear /dev/wd0 0'
             seq 1000000 | head -c 65536 >pattern
             exec 3<>/dev/mapper/one
             dmsetup remove --deferred one; dmsetup message one 0 @cancel_deferred_remove
             dd if=pattern bs=64k oflag=direct status=none >&3
             dmsetup remove one 2>/dev/null || echo busy
             dmsetup load one --table '0 16 linear /dev/wd0 0'; dmsetup suspend one; dmsetup resume one
             blockdev --getsz /dev/mapper/one
             head -c 8192 pattern | cmp - /dev/mapper/one
             exec 3<&-
             dmsetup info -c --noheadings -o name,open; dmsetup remove one; dmsetup ls",
        )
        .ok();
    assert_eq!(out, "busy\n16\none:0\nNo devices found\n");
    nothing_is_left(&disks.folder, "none");
}

/// btrfs grows and shrinks while it is mounted, and needs no right that containers often lack.
#[test]
fn a_file_system_follows_its_device_while_it_is_mounted() {
    if !has_blocks() || !has(&["mkfs.btrfs"]) {
        return;
    }
    let disks = Disks::new(600);
    let done = disks.script(
        "grep -qw btrfs /proc/filesystems || { echo no btrfs; exit 0; }
         dmsetup create one --table '0 614400 linear /dev/wd0 0'
         mkfs.btrfs -q /dev/mapper/one >/dev/null; mount /dev/mapper/one mnt
         seq 2000000 >mnt/numbers; sum=$(md5sum <mnt/numbers)
         dmsetup load one --table '0 1228800 linear /dev/wd0 0'
         dmsetup suspend one; dmsetup resume one
         blockdev --getsz /dev/mapper/one
         btrfs filesystem resize max mnt >/dev/null
         btrfs filesystem usage -b mnt | awk '/Device size/ { print $3 }'
         btrfs filesystem resize 300m mnt >/dev/null
         dmsetup load one --table '0 614400 linear /dev/wd0 0'
         dmsetup suspend one; dmsetup resume one
         sync; echo 3 >/proc/sys/vm/drop_caches || true
         test \"$sum\" = \"$(md5sum <mnt/numbers)\"; umount mnt
         btrfs check --readonly /dev/mapper/one >check 2>&1 || { cat check; exit 1; }
         echo whole",
    );
    let out = done.ok();
    match out.as_str() {
        "no btrfs\n" => eprintln!("skipped: the kernel has no btrfs"),
        out => assert_eq!(out, "1228800\n629145600\nwhole\n"),
    }
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn any_block_device_can_be_a_component_and_is_let_go() {
    if !has_blocks() || !has(&["losetup"]) {
        return;
    }
    let disks = Disks::new(4);
    let out = disks
        .script(
            "truncate -s 1M extra
             loop=$(losetup -f --show extra)
             trap 'losetup -d $loop' EXIT
             dmsetup create one --table \"0 2048 linear $loop 0\"
             test \"$(dmsetup table one)\" = \"0 2048 linear 7:${loop#/dev/loop} 0\"
             # sync(1) begins to write each device once: what comes to the one below later stays there.
             echo hello | dd of=/dev/mapper/one conv=sync,fsync status=none
             head -c 5 extra; echo
             dmsetup remove one",
        )
        .ok();
    assert_eq!(out, "hello\n");
    nothing_is_left(&disks.folder, "none");
}
