# snapshot-merge: a snapshot is brought back into its origin as lvm has it: status and content after each step, both disks byte for byte; carried on
# by the other side when it was stopped.
needs snapshot-merge
disk a 2048
disk c 1100 zero

create real
load real
  0 2048 linear @a 0
resume real
create cow
load cow
  0 1100 linear @c 0
resume cow
make o
  0 2048 snapshot-origin @real
make s
  0 2048 snapshot @real @cow P 8
# A run of three, one alone, one of the snapshot's own, a run backwards, the last chunk.
write o 0 24 by 8
write o 100 1
write s 400 8
write s 309 3
write o 64 8
write o 56 8
write o 2040 8
status s
read s 0 2048 by 64

# The source must be suspended.
load o
  0 2048 snapshot-merge @real @cow P 8
table o inactive
differs "0 2048 snapshot-merge @real @cow P 0" "0 2048 snapshot-merge @real @cow P 8" ours shows what the table says
resume o
status o
differs "0 2048 snapshot-merge 0/1100 0" "0 2048 snapshot-origin " ours goes on with the table it had
load s
  0 2048 error
suspend o
suspend s
suspend real
suspend cow
resume real
resume cow
resume o
until o "* 16/1100 16"
table o
status s
table s
resume s
status s
table s
read o 0 2048 by 64
image c 0 16
image a 0 2048
# Writes go to the origin.
write o 8 40 by 4
write o 2047 1
flush o
read o 0 2048 by 64
image a 0 2048
discard o 0 8
status o
# It is over; the store is empty.
suspend o
resume o
status o
load o
  0 2048 linear @real 0
suspend o noflush
resume o
table o
remove s
remove o
remove cow
remove real
image c 0 1100

# Begun, and stopped by a chunk that cannot be read.
make o
  0 2048 snapshot-origin @a
make s
  0 2048 snapshot @a @c P 8
write o 0 8
write o 200 8
write o 296 8
write o 404 4
write s 496 8
write o 600 8
status s
remove o
remove s
make cow
  0 32 linear @c 0
  32 8 error
  40 1060 linear @c 40
make o
  0 2048 snapshot-merge @a @cow P 16 1 discard_zeroes_cow
until o "* Merge failed"
table o
image c 0 16
# Chunks that are merged, that are not, that cannot be read, that never were exceptions.
read o 600 8
read o 0 8
read o 296 8
read o 1000 8
write o 600 4
write o 200 3
write o 1001 8
read o 0 2048 by 8
image c 0 32
image c 40 1060
suspend o
resume o
until o "* Merge failed"
remove o
remove cow
swap
# The other one goes on.
make s
  0 2048 snapshot @a @c P 8
status s
read s 0 2048 by 64
suspend s
load s
  0 2048 snapshot-merge @a @c P 8
resume s
until s "* 16/1100 16"
read s 0 2048 by 64
image c 0 16
remove s
image a 0 2048
swap crash
make s
  0 2048 snapshot @a @c P 8
status s
read s 0 2048 by 64
write s 0 32 by 8
status s
