// SPDX-License-Identifier: BSD-2-Clause

//! lvm(8) with mirrors: volumes that are made of them, become one and are one no more, lose a disk, and are moved.

use crate::session::{Disks, has, has_blocks, nothing_is_left};

const TOOLS: &[&str] = &["lvm", "mkfs.ext4", "e2fsck", "resize2fs"];

/// The common start of the scripts. A volume is mounted at `mnt` while it is changed, with a file of known checksum,
/// and in most of them a program that writes all the time.
const COMMON: &str = r#"
    q() { "$@" >log 2>&1 || { echo "failed: $*"; cat log; dmsetup table; dmsetup status; exit 1; }; }
    fill() { q mkfs.ext4 -q $1; mount $1 mnt; seq 300000 >mnt/numbers; sum=$(md5sum <mnt/numbers); }
    same() { test "$sum" = "$(md5sum <mnt/numbers)"; }
    whole() { umount mnt; q e2fsck -fy $1; }
    state() { dmsetup status $1 | sed 's/252:[0-9]*/D/g'; }
    # Waits for a mirror to be as a pattern says: every step that ends such a wait is an event.
    until_state() {
        while :; do
            event=$(dmsetup info -c --noheadings -o events $1)
            dmsetup status $1 | grep -q "$2" && return
            dmsetup wait $1 $event >/dev/null
        done
    }
    in_sync() { until_state $1 ' \([0-9]*\)/\1 1 '; }
    load() {
        rm -f stop; : >writes
        ( n=0; while ! test -e stop; do
            n=$((n+1)); seq $n 2000 >mnt/f; sync mnt/f; mv mnt/f mnt/f$((n%50)); echo >>writes
        done ) & writer=$!
    }
    loaded() {
        touch stop; wait $writer; test -s writes
        for f in mnt/f[0-9]*; do seq $(head -n1 $f) 2000 | cmp - $f; done
    }
"#;

/// `count` disks of 96 MiB; `None` where this cannot be tried.
fn disks(count: usize) -> Option<Disks> {
    (has_blocks() && has(TOOLS)).then(|| Disks::several(count, 96))
}

#[track_caller]
fn run(disks: &Disks, script: &str) -> String {
    disks.script(&format!("{COMMON}\n{script}")).ok()
}

#[test]
fn mirrored_volumes_with_each_log() {
    let Some(disks) = disks(3) else { return };
    let out = run(
        &disks,
        "q lvm vgcreate -s 1M vg /dev/wd0 /dev/wd1 /dev/wd2
         for log in disk core; do for sync in '' --nosync; do
             q lvm lvcreate -y --type mirror -m1 --mirrorlog $log $sync -L16M -R512k -n m vg
             dmsetup table vg-m | sed 's/252:[0-9]*/D/g'
             fill /dev/vg/m; in_sync vg-m; state vg-m; whole /dev/vg/m
             test -n \"$sync\" || cmp /dev/mapper/vg-m_mimage_0 /dev/mapper/vg-m_mimage_1
             q lvm lvchange -an vg/m; q lvm lvchange -ay vg/m
             mount /dev/vg/m mnt; same
             # Longer, while it is mounted.
             q lvm lvextend -L24M vg/m; in_sync vg-m; state vg-m; same; whole /dev/vg/m
             q resize2fs /dev/vg/m; q e2fsck -fn /dev/vg/m
             q lvm lvremove -f vg/m
         done; done
         dmsetup ls",
    );
    let expected = "\
0 32768 mirror disk 2 D 1024 2 D 0 D 0 1 handle_errors
0 32768 mirror 2 D D 32/32 1 AA 3 disk D A
0 49152 mirror 2 D D 48/48 1 AA 3 disk D A
0 32768 mirror disk 3 D 1024 nosync 2 D 0 D 0 1 handle_errors
0 32768 mirror 2 D D 32/32 1 AA 3 disk D A
0 49152 mirror 2 D D 48/48 1 AA 3 disk D A
0 32768 mirror core 1 1024 2 D 0 D 0 1 handle_errors
0 32768 mirror 2 D D 32/32 1 AA 1 core
0 49152 mirror 2 D D 48/48 1 AA 1 core
0 32768 mirror core 2 1024 nosync 2 D 0 D 0 1 handle_errors
0 32768 mirror 2 D D 32/32 1 AA 1 core
0 49152 mirror 2 D D 48/48 1 AA 1 core
No devices found
";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn a_mounted_volume_becomes_a_mirror_and_is_none_again() {
    let Some(disks) = disks(3) else { return };
    let out = run(
        &disks,
        "q lvm vgcreate -s 1M vg /dev/wd0 /dev/wd1 /dev/wd2
         q lvm lvcreate -L16M -n m vg /dev/wd0
         fill /dev/vg/m; load
         for log in core disk; do
             q lvm lvconvert -y -i1 --type mirror -m1 --mirrorlog $log vg/m; in_sync vg-m; state vg-m; same
             # The leg is taken away that the data came from, then the other one.
             q lvm lvconvert -y -m0 vg/m /dev/wd0
             dmsetup table vg-m | cut -d' ' -f1-3
             q lvm lvconvert -y -i1 --type mirror -m1 --mirrorlog $log vg/m /dev/wd0
             q lvm lvconvert -y -m0 vg/m $(lvm lvs -a --noheadings -o devices vg/m_mimage_1 | sed 's/(.*//')
         done
         loaded; same; whole /dev/vg/m
         q lvm lvconvert -y -i1 --type mirror -m1 --mirrorlog core vg/m
         mount /dev/vg/m mnt; in_sync vg-m
         q lvm lvconvert -y --splitmirrors 1 -n split vg/m
         dmsetup table | cut -d' ' -f1-4
         same; umount mnt; q e2fsck -fn /dev/vg/m
         q e2fsck -fy /dev/vg/split; mount /dev/vg/split mnt; same; umount mnt
         q lvm vgchange -an vg; dmsetup ls",
    );
    let expected = "\
0 32768 mirror 2 D D 8/8 1 AA 1 core
0 32768 linear
0 32768 mirror 2 D D 8/8 1 AA 3 disk D A
0 32768 linear
vg-m: 0 32768 linear
vg-split: 0 32768 linear
No devices found
";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
}

/// A device under each physical volume can be made to fail.
const PHYSICAL: &str = r#"
    p=/dev/mapper/pv
    for n in $DISKS; do dmsetup create pv$n --table "0 196608 linear /dev/wd$n 0"; done
    only='devices{filter=["r|wd|"]}'
    lvm() { command lvm "$@" --config "$only"; }
    exchange() { dmsetup reload pv$1; dmsetup suspend --noflush pv$1; dmsetup resume pv$1; }
"#;

fn loses_a_disk(gone: u32, state: &str, after: &str) {
    let Some(disks) = disks(3) else { return };
    let script = format!(
        "DISKS='0 1 2' gone={gone}
         {PHYSICAL}
         q lvm vgcreate -s 1M vg ${{p}}0 ${{p}}1 ${{p}}2
         q lvm lvcreate -y --type mirror -m1 -L16M -n m vg ${{p}}0 ${{p}}1 ${{p}}2
         fill /dev/vg/m; in_sync vg-m; load
         echo '0 196608 error' | exchange $gone
         until_state vg-m ' \\(DA\\|AD\\) \\| D$'
         state vg-m | sed 's:[5-8]/8:S:'
         q lvm vgreduce --removemissing --force vg
         dmsetup table vg-m | sed 's/252:[0-9]* [0-9]*/D/g'
         sync -f mnt; loaded; same; whole /dev/vg/m
         q lvm vgchange -an vg"
    );
    assert_eq!(run(&disks, &script), format!("{state}\n{after}\n"));
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn a_mirror_loses_its_first_leg() {
    loses_a_disk(0, "0 32768 mirror 2 D D S 1 DA 3 disk D A", "0 32768 linear D");
}

#[test]
fn a_mirror_loses_its_second_leg() {
    loses_a_disk(1, "0 32768 mirror 2 D D S 1 AD 3 disk D A", "0 32768 linear D");
}

#[test]
fn a_mirror_loses_its_log() {
    let after = "0 32768 mirror core 2 4096 nosync 2 D D 1 handle_errors";
    loses_a_disk(2, "0 32768 mirror 2 D D S 1 AA 3 disk D D", after);
}

/// The second half of the moved data is copied slowly, so that the move can be stopped on the way.
const SLOW: &str = "
    slow() { printf '0 18432 linear %s 0\\n18432 178176 delay %s 18432 0 %s 18432 100\\n' /dev/wd$1 /dev/wd$1 /dev/wd$1 | exchange $1; }
    start_move() {
        slow $2
        # The program itself, not a shell around it, which would die alone.
        (exec lvm pvmove -i1 $p$1 $p$2 --config \"$only\") >move 2>&1 & mover=$!
        until dmsetup status vg-pvmove0 2>/dev/null | grep -q ' [4-7]/8 '; do
            kill -0 $mover || { cat move; exit 1; }
        done
        # The volume is the last that goes on; then there is nothing left to do but to wait.
        until dmsetup info -c --noheadings -o suspended vg-m | grep -q Active; do kill -0 $mover; done
    }
";

#[test]
fn a_mounted_volume_is_moved() {
    let Some(disks) = disks(2) else { return };
    let start = format!("DISKS='0 1'\n{PHYSICAL}{SLOW}");
    // The session ends in the middle of it, and what is mounted with it.
    let script = format!(
        "{start}
         q lvm vgcreate -s 1M vg ${{p}}0 ${{p}}1
         q lvm lvcreate -L16M -n m vg ${{p}}0
         fill /dev/vg/m; echo \"$sum\" >sum; load
         start_move 0 1
         kill -9 $mover
         loaded; same
         dmsetup table vg-pvmove0 | cut -d' ' -f1-3"
    );
    assert_eq!(run(&disks, &script), "0 32768 mirror\n");
    nothing_is_left(&disks.folder, "none");
    // Another one takes it up; then a move back is called off.
    let script = format!(
        "{start}
         q lvm vgchange -ay vg
         dmsetup table vg-pvmove0 | cut -d' ' -f1-3
         q e2fsck -fp /dev/vg/m; mount /dev/vg/m mnt; sum=$(cat sum); same; load
         q lvm pvmove -i1
         lvm lvs -a --noheadings -o lv_name,devices vg | tr -s ' '
         same; start_move 1 0
         q lvm pvmove --abort; wait $mover || :
         lvm lvs -a --noheadings -o lv_name,devices vg | tr -s ' '
         loaded; same; whole /dev/vg/m
         q lvm vgchange -an vg"
    );
    let moved = " m /dev/mapper/pv1(0)\n";
    assert_eq!(run(&disks, &script), format!("0 32768 mirror\n{moved}{moved}"));
    nothing_is_left(&disks.folder, "none");
}
