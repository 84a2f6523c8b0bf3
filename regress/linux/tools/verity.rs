// SPDX-License-Identifier: BSD-2-Clause

//! veritysetup, as Debian builds it: it formats, opens and looks after devices of this driver.

use crate::session::{Disks, has, has_blocks, nothing_is_left};

#[test]
fn veritysetup_opens_what_it_has_formatted() {
    if !has_blocks() || !has(&["veritysetup"]) {
        return;
    }
    let disks = Disks::new(4);
    let done = disks
        .script(
            "seq 1000000 | head -c 1048576 >pattern
             dd if=pattern of=/dev/wd0 bs=64k oflag=direct status=none
             root=$(veritysetup format --data-blocks=256 /dev/wd0 /dev/wd1 | sed -n 's/^Root hash:[[:space:]]*//p')
             echo $root | wc -c
             veritysetup open /dev/wd0 image /dev/wd1 $root
             veritysetup status image | grep -E 'is active|status:|hash name|mode:'
             dmsetup info -c --noheadings -o uuid,attr,segments image | sed 's/-[0-9a-f]\\{32\\}-/-UUID-/'
             blockdev --getsz --getro /dev/mapper/image
             cmp pattern /dev/mapper/image && echo same
             veritysetup verify /dev/wd0 /dev/wd1 $root && echo verified
             printf X | dd of=/dev/wd0 bs=1 seek=409700 conv=notrunc status=none; sync
             veritysetup open /dev/wd0 other /dev/wd1 $root --ignore-corruption --ignore-zero-blocks --check-at-most-once
             dmsetup table other | sed 's/.* \\(3 .*\\)/\\1/'
             cmp -l pattern /dev/mapper/other | wc -l
             dmsetup status other
             veritysetup close image
             veritysetup open /dev/wd0 image /dev/wd1 $root
             dd if=/dev/mapper/image of=/dev/null bs=4096 skip=100 count=1 iflag=direct 2>&1 | grep -c 'Input/output error'
             dmsetup status image
             veritysetup status image | grep status:
             veritysetup verify /dev/wd0 /dev/wd1 $root 2>/dev/null || echo not verified
             veritysetup close image; veritysetup close other
             veritysetup open /dev/wd0 image /dev/wd1 $(echo $root | tr 0-9a-f 1-9a-f0) 2>/dev/null
             dd if=/dev/mapper/image of=/dev/null bs=4096 count=1 iflag=direct 2>&1 | grep -c 'Input/output error'
             veritysetup close image
             dmsetup ls",
        )
        ;
    let expected = "\
65
/dev/mapper/image is active.
  status:      verified
  hash name:   sha256
  mode:        readonly
CRYPT-VERITY-UUID-image:L--r:1
2048
1
same
verified
3 ignore_corruption ignore_zero_blocks check_at_most_once
1
0 2048 verity C
1
0 2048 verity C
  status:      corrupted
not verified
1
No devices found
";
    assert_eq!((done.code, done.out.as_str()), (0, expected), "{}", done.err);
    // The driver's console tells of each that was met.
    assert_eq!(done.err.lines().count(), 3, "{}", done.err);
    assert!(done.err.lines().all(|line| line.ends_with(" is corrupted")), "{}", done.err);
    nothing_is_left(&disks.folder, "none");
}
