# snapshot-merge: what is refused, and what is not.
needs snapshot-merge
disk a 2048
disk b 2048 zero
disk c 2048 zero
disk k 2048 block 4096
disk v 64 zero

try d
  0 2048 snapshot-merge
try d
  0 2048 snapshot-merge @a
try d
  0 2048 snapshot-merge @a @b
try d
  0 2048 snapshot-merge @a @b P
try d
  0 2048 snapshot-merge @a @b N 8
try d
  0 2048 snapshot-merge @a @b n 8
try d
  0 2048 snapshot-merge @a @b Q 8
try d
  0 2048 snapshot-merge @a @b P 7
try d
  0 2048 snapshot-merge @a @b P 8 0
try d
  0 2048 snapshot-merge @a @b P 8 1 x
try d
  0 2048 snapshot-merge @a @b P 8 2 discard_zeroes_cow discard_passdown_origin
try d
  0 2048 snapshot-merge @a @b PO 0
try d
  0 2048 snapshot-merge @a @a P 8
try d
  0 2048 snapshot-merge @k @v P 4
try d
  0 2048 snapshot-merge @k @v P 8
# A store in memory cannot be merged. One that is merged, by the same.
make s
  0 2048 snapshot @a @b N 8
create d
load d
  0 2048 snapshot-merge @a @b P 8
remove d
remove s
make m
  0 2048 snapshot-merge @a @b P 8
create d
load d
  0 2048 snapshot-merge @a @b P 8
differs "EINVAL" "ok" a merge may have its table exchanged, as every table
load d
  0 2048 snapshot-merge @a @c P 8
differs "ok" "EINVAL" two of one origin would spoil each other
remove d
make d
  0 2048 snapshot @a @c P 8
status d
status m
remove m
