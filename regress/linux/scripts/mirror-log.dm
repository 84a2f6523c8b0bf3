# mirror: the log on a disk, its bytes, and what is made of one that is found: older, shorter, longer,
# lvm's, of another version, of none, and too small.
needs mirror
disk a 4096
disk b 4096
disk l 16 zero
disk m 4 zero
disk n 3 zero
disk k 16 zero private

# What is no log becomes one, all out of sync. (Bytes 16 to 1023, which mean nothing, Linux keeps and we clear.)
make d
  0 1000 mirror disk 2 @l 16 2 @a 0 @b 0
until d * 63/63 *
suspend d
status d
image l 0 3
image l 3 13
remove d
image l 0 3
# It is believed: the legs differ behind our back.
write b 100 1
make d
  0 1000 mirror disk 2 @l 16 2 @a 0 @b 0
status d
wait d 0
suspend d
image l 0 3
remove d
image b 0 1000

# The device has grown: only the new regions are copied.
write b 101 1
make d
  0 2000 mirror disk 2 @l 16 2 @a 0 @b 0
until d * 125/125 *
wait d 0
remove d
image l 0 3
image b 0 2000
# Grown with nosync: what is new counts as in sync.
write b 2100 1
make d
  0 3000 mirror disk 3 @l 16 nosync 2 @a 0 @b 0
status d
remove d
image l 0 3
image b 0 3000
# Regions of another size: bits are what they are.
make d
  0 4096 mirror disk 2 @l 8 2 @a 0 @b 0
until d * 512/512 *
remove d
image l 0 3

# The table does not change its log when it is loaded again, nor when it is there twice.
make d
  0 4096 mirror disk 2 @l 8 2 @a 0 @b 0
write d 5 40
load d
  0 4096 mirror disk 2 @l 8 2 @a 0 @b 0
status d inactive
suspend d
resume d
status d
remove d
image l 0 3

# A log of the least size, and one that is a sector too small.
make d
  0 4096 mirror disk 2 @m 2 2 @a 0 @b 0
until d * 2048/2048 *
remove d
image m 0 4
make d
  0 4096 mirror disk 2 @n 2 2 @a 0 @b 0
until d * 2048/2048 *
remove d
image n 0 3
try d
  0 4096 mirror disk 2 @n 16777216 2 @a 0 @b 0
# Shorter: the log has fewer regions. (Behind their last word Linux keeps what was there, we clear it.)
make d
  0 500 mirror disk 2 @k 16 2 @a 0 @b 0
until d * 32/32 *
remove d
image k 0 3
make d
  0 2000 mirror disk 2 @k 16 2 @a 0 @b 0
until d * 125/125 *
remove d
image k 0 3
make d
  0 500 mirror disk 2 @k 16 2 @a 0 @b 0
status d
remove d
make d
  0 2000 mirror disk 2 @k 16 2 @a 0 @b 0
until d * 125/125 *
remove d
check cmp -n 2097152 $a $b
