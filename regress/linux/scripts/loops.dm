# Tables that map to themselves, and stacks of tables.
disk a 512

make d
  0 64 linear @a 0
load d
  0 64 linear @d 0
differs ok ELOOP Linux lets a device stand on itself, and each I/O to it fails or never ends
table d inactive
differs "0 64 linear @d 0" "no lines" as above
clear d
make e
  0 64 linear @d 0
load d
  0 64 linear @e 0
differs ok ELOOP as above, through another device
table d inactive
differs "0 64 linear @e 0" "no lines" as above
clear d
table d
# A stack as high as ours may be.
make s1
  0 60 linear @a 4
make s2
  0 56 linear @s1 4
make s3
  0 52 striped 2 2 @s2 0 @s2 26
make s4
  0 48 linear @s3 4
write s4 1 46
read s4 0 48
read s3 0 52 by 5
image a 0 128
# Beyond the end of a device, and on one without a table.
make over
  0 64 linear @s2 0
create empty
make over
  0 8 linear @empty 0
differs "load ENXIO" "load EINVAL" it has no sectors, so the range ends beyond it
names
# And one that is too high.
make s5
  0 44 linear @s4 4
