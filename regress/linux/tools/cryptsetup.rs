// SPDX-License-Identifier: BSD-2-Clause

//! Linux's cryptsetup on the driver, with QEMU as a judge of the disks.

use crate::session::{Disks, has, has_blocks, nothing_is_left};
use crate::tool::TOOL;

/// A key that is made quickly, and words that every command wants.
const SETUP: &str = "
    head -c 32 /dev/urandom | od -An -tx1 | tr -d ' \\n' >key
    keyed='--disable-keyring --key-file key'
    fast=\"$keyed --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --batch-mode\"
    # A table without its key and without the component's number.
    shown() { dmsetup table --showkeys $1 | sed -E 's/ [0-9a-f]{32,} / KEY /; s/ [0-9]+:[0-9]+ / DEV /'; }
";

#[test]
fn luks_disks_are_made_opened_suspended_and_read() {
    if !has_blocks() || !has(&["cryptsetup", "mkfs.ext4"]) {
        return;
    }
    let disks = Disks::several(1, 32);
    let script = "
        for type in luks1 luks2; do
            cryptsetup luksFormat $fast --type $type /dev/wd0 2>/dev/null || exit
            cryptsetup open $keyed /dev/wd0 c || exit
            shown c
            cryptsetup status c | grep 'cipher:'
            mkfs.ext4 -q /dev/mapper/c && mount /dev/mapper/c mnt
            seq 200000 >mnt/numbers
            # The key is taken away while this is written, and given back.
            seq 300000 >mnt/more & cryptsetup luksSuspend c; dmsetup info c | grep State:
            dmsetup table --showkeys c | grep -o ' 000000'
            cryptsetup luksResume $keyed c; wait
            umount mnt; cryptsetup close c
            cryptsetup open --readonly $keyed /dev/wd0 c; mount -o ro,noload /dev/mapper/c mnt
            seq 200000 | cmp - mnt/numbers && seq 300000 | cmp - mnt/more && echo same
            umount mnt; cryptsetup close c
        done";
    let out = disks.script(&format!("{SETUP}{script}")).ok();
    let one = |sectors: u64, start: u64| {
        format!(
            "0 {sectors} crypt aes-xts-plain64 KEY 0 DEV {start}\n  cipher:  aes-xts-plain64\n\
             State:             SUSPENDED\n 000000\nsame\n"
        )
    };
    assert_eq!(out, one(61440, 4096) + &one(32768, 32768));
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn qemu_reads_a_luks_disk_that_was_written_here() {
    if !has_blocks() || !has(&["cryptsetup", "qemu-img"]) {
        return;
    }
    let disks = Disks::several(1, 8);
    let script = "
        cryptsetup luksFormat $fast --type luks1 --cipher $1 --key-size $2 /dev/wd0 || exit
        cryptsetup open $keyed /dev/wd0 c || exit
        seq 1000000 | dd of=/dev/mapper/c bs=64k count=90 iflag=fullblock oflag=direct status=none
        dd if=/dev/mapper/c of=ours bs=64k status=none
        cryptsetup close c
        options=driver=luks,key-secret=s,file.driver=host_device,file.filename=/dev/wd0
        qemu-img convert --object secret,id=s,file=key --image-opts $options -O raw theirs
        cmp ours theirs && echo same";
    for mode in ["aes-xts-plain64 512", "aes-cbc-essiv:sha256 256", "aes-cbc-plain64 128"] {
        let out = disks.script(&format!("{SETUP} set -- {mode}\n{script}")).ok();
        assert_eq!(out, "same\n", "{mode}");
    }
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn plain_disks_have_the_words_that_cryptsetup_sends() {
    if !has_blocks() || !has(&["cryptsetup"]) {
        return;
    }
    let disks = Disks::several(1, 8);
    let script = "
        plain() { cryptsetup open --type plain $keyed --cipher $1 --key-size $2 --offset 16 --skip 8 /dev/wd0 p; }
        plain $1 $2 || exit
        shown p
        head -c 64000 /dev/urandom >data
        dd if=data of=/dev/mapper/p bs=64000 oflag=direct status=none
        cryptsetup close p; plain $1 $2
        cmp -n 64000 data /dev/mapper/p && echo same
        cryptsetup close p";
    for mode in ["aes-cbc-essiv:sha256 256", "aes-xts-plain64 256", "aes-cbc-plain64 128"] {
        let out = disks.script(&format!("{SETUP} set -- {mode}\n{script}")).ok();
        let cipher = mode.split(' ').next().unwrap_or_default();
        assert_eq!(out, format!("0 16368 crypt {cipher} KEY 8 DEV 16\nsame\n"));
    }
    let script = "
        cryptsetup open --type plain $keyed --cipher aes-xts-plain64 --key-size 512 --sector-size 4096 \\
            --iv-large-sectors --allow-discards /dev/wd0 p || exit
        shown p; blockdev --getss /dev/mapper/p
        cryptsetup close p";
    let out = disks.script(&format!("{SETUP}{script}")).ok();
    let features = "3 allow_discards sector_size:4096 iv_large_sectors";
    assert_eq!(out, format!("0 16384 crypt aes-xts-plain64 KEY 0 DEV 0 {features}\n4096\n"));
    nothing_is_left(&disks.folder, "none");
}

/// `dm-host luks` and cryptsetup make the same table of a disk, to the byte.
#[test]
fn dm_host_luks_has_the_same_table() {
    if !has_blocks() || !has(&["cryptsetup"]) {
        return;
    }
    let disks = Disks::several(1, 32);
    let script = format!(
        "same() {{
            cryptsetup luksFormat $fast $1 /dev/wd0 2>/dev/null || exit
            cryptsetup open $keyed $2 /dev/wd0 c || exit
            dmsetup table --showkeys c | sed -E 's/ [0-9]+:[0-9]+ / DISK /' >theirs
            {TOOL} luks table /dev/wd0 --key-file key --device DISK >ours
            cmp theirs ours && sed -E 's/ [0-9a-f]{{32,}} / KEY /' ours
            cryptsetup close c
        }}"
    );
    for (format, open, table) in [
        ("--type luks1", "", "0 61440 crypt aes-xts-plain64 KEY 0 DISK 4096"),
        (
            "--type luks1 --cipher aes-cbc-essiv:sha256 --key-size 128",
            "",
            "0 63488 crypt aes-cbc-essiv:sha256 KEY 0 DISK 2048",
        ),
        ("--type luks2 --sector-size 512", "", "0 32768 crypt aes-xts-plain64 KEY 0 DISK 32768"),
        (
            "--type luks2 --sector-size 4096",
            "--persistent --allow-discards --perf-no_read_workqueue --perf-same_cpu_crypt",
            "0 32768 crypt aes-xts-plain64 KEY 0 DISK 32768 4 allow_discards same_cpu_crypt \
             no_read_workqueue sector_size:4096",
        ),
    ] {
        let out = disks.script(&format!("{SETUP}{script}\nsame '{format}' '{open}'")).ok();
        assert_eq!(out, format!("{table}\n"), "{format}");
    }
    nothing_is_left(&disks.folder, "none");
}
