// SPDX-License-Identifier: BSD-2-Clause

//! lvm(8) with snapshots: moments of a mounted volume that goes on being used, which grow, fill, are written, renamed,
//! taken away, and become the volume's content again.

use crate::session::{Disks, has, has_blocks, nothing_is_left};

const TOOLS: &[&str] = &["lvm", "mkfs.ext4", "e2fsck", "fsfreeze"];

/// The beginning that the scripts have in common. A volume `o` is mounted at `mnt`, with a file whose sum is known, and in most of them
/// a writer that does not stop.
const COMMON: &str = r#"
    q() { "$@" >log 2>&1 || { echo "failed: $*"; cat log; dmsetup table; dmsetup status; exit 1; }; }
    # A suspend does not freeze here what is mounted (share/doc/linux.md).
    frozen() {
        fsfreeze -f mnt; failed=0; "$@" >log 2>&1 || failed=$?; fsfreeze -u mnt
        test $failed = 0 || { echo "failed: $*"; cat log; exit 1; }
    }
    volume() {
        q lvm vgcreate -s 1M vg /dev/wd0 /dev/wd1 /dev/wd2
        q lvm lvcreate -L$1 -n o vg
        q mkfs.ext4 -q /dev/vg/o; mount /dev/vg/o mnt; seq 300000 >mnt/numbers; sum=$(md5sum <mnt/numbers)
    }
    load() {
        rm -f stop; : >writes
        ( n=0; while ! test -e stop; do
            n=$((n+1)); seq $n 2000 >mnt/f; sync mnt/f; mv mnt/f mnt/f$((n%20)); echo >>writes
        done ) & writer=$!
    }
    writes_more() { before=$(wc -l <writes); until test $(wc -l <writes) -ge $((before + 20)); do kill -0 $writer; done; }
    loaded() {
        touch stop; wait $writer; test -s writes
        for f in mnt/f[0-9]*; do seq $(head -n1 $f) 2000 | cmp - $f; done
    }
    # What nobody writes is in order, and has the file.
    holds() {
        q e2fsck -fn $1; mkdir -p look; mount -r $1 look
        test "$sum" = "$(md5sum <look/numbers)"; umount look
    }
    # Waits until an origin has merged a snapshot, which ends with an event, and for lvm(8), which looks now and then, to see that.
    until_merged() {
        while :; do
            event=$(dmsetup info -c --noheadings -o events vg-$1)
            dmsetup status vg-$1 | grep -q ' \([0-9]*\)/[0-9]* \1$' && break
            dmsetup wait vg-$1 $event >/dev/null
        done
        q lvm lvchange --poll y vg/$1 --config activation/polling_interval=1
        until dmsetup table vg-$1 | grep -q origin; do writes_more; done
        while dmsetup ls | grep -q vg-$2-cow; do writes_more; done
    }
    tables() { dmsetup table | sed 's/252:[0-9]*/D/g; s/7:[0-9]* [0-9]*/D/'; }
    attr() { lvm lvs --noheadings -o lv_attr,origin vg/$1 | xargs; }
"#;

/// Three disks of 96 MiB, `None` where this cannot be tried.
fn disks() -> Option<Disks> {
    (has_blocks() && has(TOOLS)).then(|| Disks::several(3, 96))
}

#[track_caller]
fn run(disks: &Disks, script: &str) -> String {
    disks.script(&format!("{COMMON}\n{script}")).ok()
}

#[test]
fn two_moments_of_a_mounted_volume_under_load() {
    let Some(disks) = disks() else { return };
    let out = run(
        &disks,
        "volume 32M; load
         frozen lvm lvcreate -s -L12M -n s vg/o
         tables; attr s; attr o
         first=$(md5sum </dev/vg/s)
         writes_more
         frozen lvm lvcreate -s -c 64k -L24M -n t vg/o
         tables | grep vg-t:
         second=$(md5sum </dev/vg/t)
         # The first one grows while it is mounted.
         mkdir -p look; mount -r /dev/vg/s look
         q lvm lvextend -L24M vg/s; tables | grep vg-s-cow
         writes_more
         test \"$sum\" = \"$(md5sum <look/numbers)\"; umount look
         loaded; umount mnt
         test \"$first\" != \"$second\"
         test \"$first\" = \"$(md5sum </dev/vg/s)\"; test \"$second\" = \"$(md5sum </dev/vg/t)\"
         holds /dev/vg/s; holds /dev/vg/t; holds /dev/vg/o
         # Gone and there again, under other names.
         q lvm vgchange -an vg; dmsetup ls
         q lvm vgchange -ay vg
         q lvm lvrename vg s moment; q lvm lvrename vg o origin
         tables
         test \"$first\" = \"$(md5sum </dev/vg/moment)\"; test \"$second\" = \"$(md5sum </dev/vg/t)\"
         # The one goes, and the other has its moment still; then the last.
         mount /dev/vg/origin mnt; load; writes_more
         q lvm lvremove -f vg/moment
         writes_more; test \"$second\" = \"$(md5sum </dev/vg/t)\"
         q lvm lvremove -f vg/t
         writes_more; tables
         loaded; umount mnt; holds /dev/vg/origin
         q lvm vgchange -an vg",
    );
    let expected = "\
vg-o: 0 65536 snapshot-origin D
vg-o-real: 0 65536 linear D
vg-s: 0 65536 snapshot D D P 8
vg-s-cow: 0 24576 linear D
swi-a-s--- o
owi-aos---
vg-t: 0 65536 snapshot D D P 128
vg-s-cow: 0 24576 linear D
vg-s-cow: 24576 24576 linear D
No devices found
vg-moment: 0 65536 snapshot D D P 8
vg-moment-cow: 0 24576 linear D
vg-moment-cow: 24576 24576 linear D
vg-origin: 0 65536 snapshot-origin D
vg-origin-real: 0 65536 linear D
vg-t: 0 65536 snapshot D D P 128
vg-t-cow: 0 49152 linear D
vg-origin: 0 65536 linear D
";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn a_snapshot_is_written_and_outlives_its_session() {
    let Some(disks) = disks() else { return };
    let script = "
         volume 16M
         frozen lvm lvcreate -s -L12M -n s vg/o
         seq 7 >mnt/of-the-origin; sync -f mnt
         mkdir -p look; mount /dev/vg/s look; seq 9 >look/of-the-snapshot; rm look/numbers; sync -f look
         ls look | grep -v lost; umount look
         ls mnt | grep -v lost
         echo \"$sum\" >sum; lvm lvs --noheadings -o snap_percent vg/s | tr -d ' ' >percent
         dmsetup status vg-s >status";
    assert_eq!(run(&disks, script), "of-the-snapshot\nnumbers\nof-the-origin\n");
    nothing_is_left(&disks.folder, "none");
    // The session ended with the volume mounted. What its end wrote is in the origin alone.
    let script = "
         q lvm vgchange -ay vg
         lvm lvs --noheadings -o lv_attr vg/s | tr -d ' '
         q e2fsck -fn /dev/vg/s; mkdir -p look; mount -r /dev/vg/s look; ls look | grep -v lost
         seq 9 | cmp - look/of-the-snapshot; umount look
         q e2fsck -fp /dev/vg/o; mount /dev/vg/o mnt; ls mnt | grep -v lost
         test \"$(cat sum)\" = \"$(md5sum <mnt/numbers)\"; umount mnt
         # Longer, with a snapshot.
         q lvm vgchange -an vg; q lvm lvextend -L24M vg/o; q lvm vgchange -ay vg
         dmsetup table vg-o | cut -d' ' -f1-3; dmsetup table vg-s | cut -d' ' -f1-3
         q e2fsck -fn /dev/vg/s
         q lvm vgchange -an vg";
    let expected = "\
swi-a-s---
of-the-snapshot
numbers
of-the-origin
0 49152 snapshot-origin
0 32768 snapshot
";
    assert_eq!(run(&disks, script), expected);
    nothing_is_left(&disks.folder, "none");
}

#[test]
fn a_full_snapshot_is_lost_and_its_origin_goes_on() {
    let Some(disks) = disks() else { return };
    let out = run(
        &disks,
        "volume 32M
         frozen lvm lvcreate -s -L4M -n s vg/o
         frozen lvm lvcreate -s -L32M -n t vg/o
         second=$(md5sum </dev/vg/t)
         dd if=/dev/urandom of=mnt/more bs=64k count=80 conv=fsync status=none; more=$(md5sum <mnt/more)
         dmsetup status vg-s; attr s; attr t
         dd if=/dev/vg/s of=/dev/null bs=64k count=1 2>/dev/null && exit 1
         umount mnt; q lvm vgchange -an vg; q lvm vgchange -ay vg
         dmsetup status vg-s
         test \"$second\" = \"$(md5sum </dev/vg/t)\"
         q lvm lvremove -f vg/s
         holds /dev/vg/t; holds /dev/vg/o
         mount -r /dev/vg/o mnt; test \"$more\" = \"$(md5sum <mnt/more)\"; umount mnt
         q lvm vgremove -f vg; dmsetup ls",
    );
    let expected = "\
0 65536 snapshot Invalid
swi-I-s--- o
swi-a-s--- o
0 65536 snapshot Invalid
No devices found
";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
}

/// `lvconvert --merge` undoes the changes since the snapshot, with the volume mounted meanwhile.
#[test]
fn a_volume_goes_back_to_a_snapshot_while_it_is_mounted() {
    let Some(disks) = disks() else { return };
    let out = run(
        &disks,
        "volume 32M
         frozen lvm lvcreate -s -L24M -n s vg/o
         frozen lvm lvcreate -s -c 64k -L32M -n t vg/o
         second=$(md5sum </dev/vg/t)
         spoil() { rm mnt/numbers; seq 5 >mnt/five; dd if=/dev/urandom of=mnt/big bs=64k count=100 conv=fsync status=none; }
         spoil
         # The origin is in use: this waits until it is active anew.
         lvm lvconvert --merge vg/s 2>&1 | grep -c 'next activation'
         umount mnt; q lvm lvchange -an vg/o; q lvm lvchange -ay --poll n vg/o
         tables | grep -v cow
         mount /dev/vg/o mnt; ls mnt | grep -v lost; test \"$sum\" = \"$(md5sum <mnt/numbers)\"
         load; writes_more
         until_merged o s; tables | grep -v cow
         writes_more; loaded; test \"$sum\" = \"$(md5sum <mnt/numbers)\"
         umount mnt; holds /dev/vg/o
         # The other one has its moment still, from before that; not in use, it is merged at once.
         test \"$second\" = \"$(md5sum </dev/vg/t)\"; holds /dev/vg/t
         mount /dev/vg/o mnt; spoil; umount mnt
         q lvm lvconvert --merge -i1 vg/t
         # What Linux had cached of it does not go at its last close here (share/doc/linux.md).
         blockdev --flushbufs /dev/vg/o
         tables; test \"$second\" = \"$(md5sum </dev/vg/o)\"; holds /dev/vg/o
         q lvm vgchange -an vg",
    );
    let expected = "\
1
vg-o: 0 65536 snapshot-merge D D P 8
vg-o-real: 0 65536 linear D
vg-s: 0 65536 error 
vg-t: 0 65536 snapshot D D P 128
numbers
vg-o: 0 65536 snapshot-origin D
vg-o-real: 0 65536 linear D
vg-t: 0 65536 snapshot D D P 128
vg-o: 0 65536 linear D
";
    assert_eq!(out, expected);
    nothing_is_left(&disks.folder, "none");
}
