# mirror: the forms of its table, its status, recovery to the end and the event then, data through it,
# and legs that have the same at the end.
quick
needs mirror
disk a 2048
disk b 2048
disk c 2048
disk l 16 zero

make d
  0 1000 mirror core 1 64 2 @a 8 @b 16
table d
deps d
until d 0 1000 mirror * 16/16 *
status d
wait d 0
read d 0 1000 by 100
write d 0 128
write d 300 700 by 70
read d 0 1000 by 128
flush d
# Neither suspend nor resume makes it begin again.
suspend d
status d
resume d
status d
info d
remove d
image a 0 2048
image b 0 2048

# A log on a disk; a last region that is short; three legs.
make d
  0 1001 mirror disk 2 @l 128 3 @a 8 @b 16 @c 0 1 handle_errors
table d
deps d
until d * 8/8 1 AAA *
info d
write d 10 1
write d 990 11
read d 0 1001 by 128
suspend d
status d
remove d
image l 0 3
image b 0 2048
image c 0 2048

# nosync: all is in sync at once, whatever the legs hold.
make d
  0 1024 mirror core 2 1024 nosync 2 @a 0 @c 1024
table d
status d
write d 0 512 by 128
write d 700 3
read d 0 512 by 128
flush d
discard d 600 8
remove d
image a 0 1024
image c 1024 1024
# sync: all is copied, whatever the log says.
make d
  0 1001 mirror disk 3 @l 128 sync 2 @c 8 @b 16 2 handle_errors keep_log
table d
until d * 8/8 *
remove d
image l 0 3
image b 0 2048

# As many legs as there can be.
make d
  0 100 mirror core 2 2 sync 8 @a 0 @a 128 @a 256 @a 384 @b 0 @b 128 @b 256 @b 384 0
table d
until d * 50/50 *
read d 0 100 by 50
write d 3 60
status d
remove d
image a 0 512
image b 0 512
make d
  0 100 mirror core 2 2 nosync 9 @a 0 @a 128 @a 256 @a 384 @b 0 @b 128 @b 256 @b 384 @c 0 0
table d
remove d

# Lines of others beside it.
make d
  0 100 linear @c 0
  100 512 mirror core 1 16 2 @a 0 @b 0
  612 200 mirror core 2 16 nosync 2 @a 1024 @b 1024
table d
until d *32/32*
status d
write d 50 128
write d 560 128
# Where the legs hold the same: others are read from either leg.
read d 0 612 by 128
remove d
check cmp -n 262144 $a $b
