# snapshot and snapshot-origin: what is refused.
needs snapshot
disk a 2048
disk b 2048 zero
disk c 2048
disk k 2048 block 4096
disk v 64 zero
disk r 2048 readonly

try d
  0 2048 snapshot-origin
try d
  0 2048 snapshot-origin @a 0
try d
  0 2048 snapshot
try d
  0 2048 snapshot @a
try d
  0 2048 snapshot @a @b
try d
  0 2048 snapshot @a @b P
try d
  0 2048 snapshot @a @b P 8 0
try d
  0 2048 snapshot @a @b P 8 1
try d
  0 2048 snapshot @a @b P 8 1 x
try d
  0 2048 snapshot @a @b P 8 1 discard_zeroes_cow
try d
  0 2048 snapshot @a @b P 8 1 discard_passdown_origin
try d
  0 2048 snapshot @a @b P 8 2 discard_passdown_origin discard_zeroes_cow
try d
  0 2048 snapshot @a @b p 8
try d
  0 2048 snapshot @a @b n 8
try d
  0 2048 snapshot @a @b Q 8
try d
  0 2048 snapshot @a @b PX 8
try d
  0 2048 snapshot @a @b P 7
try d
  0 2048 snapshot @a @b P 0
try d
  0 2048 snapshot @a @b P 1
try d
  0 2048 snapshot @a @b P x
try d
  0 2048 snapshot @a @b P 8388608
try d
  0 2048 snapshot @a @a P 8
try d
  0 2048 snapshot @k @v P 4
try d
  0 2048 snapshot @k @v P 8
# Not a store.
try d
  0 2048 snapshot @a @c P 8
differs "load ENXIO" "resume ENXIO" our tables look at no disk before they are active
# Two tables may use a store, and no more; each with its own origin.
make s
  0 2048 snapshot @a @b P 8
create t
load t
  0 2048 snapshot @a @b P 8
resume t
load t
  0 2048 snapshot @a @b P 8
create u
load u
  0 2048 snapshot @a @b P 8
remove t
remove u
remove s
# The origin is only read, and need not take writes; the store must.
make s
  0 2048 snapshot @r @b P 8
read s 0 8
write s 0 8
read s 0 16
status s
remove s
try d
  0 2048 snapshot @b @r P 8
differs "load ENXIO" "load EROFS" our tables look at no disk before they are active, but for whether it takes writes
