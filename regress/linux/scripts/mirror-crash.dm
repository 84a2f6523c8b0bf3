# mirror: a log that a crash left dirty, carried on by the other side, both ways.
quick
needs mirror
disk a 2048
disk b 2048 like a
disk l 16 zero

# The second leg takes nothing: the log is marked and the first leg written, and so it stays.
make x
  0 2048 linear @b 0
make d
  0 1000 mirror disk 3 @l 16 nosync 2 @a 0 @x 0
image l 0 3
image a 100 8
image a 704 8
suspend x
start one write d 100 8
image l 0 3 changed
image a 100 8 changed
start two write d 704 8
image l 0 3 changed
image a 704 8 changed
pending one
pending two
image b 0 1000
swap crash

# The regions that the other one had marked are out of sync, and no more than these.
make x
  0 2048 linear @b 0
suspend x
make d
  0 1000 mirror disk 2 @l 16 2 @a 0 @x 0
status d
resume x
until d * 63/63 *
# When what was copied is called clean is each one's own affair, but by now.
suspend d
image l 0 3
resume d
image b 0 1000
image a 999 1
suspend x
start three write d 999 1
image l 0 3 changed
image a 999 1 changed
swap crash

make x
  0 2048 linear @b 0
suspend x
make d
  0 1000 mirror disk 2 @l 16 2 @a 0 @x 0
status d
resume x
until d * 63/63 *
remove d
image l 0 3
image b 0 1000
check cmp -n 512000 $a $b
