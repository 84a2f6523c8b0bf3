# One side begins and the other carries on, three times over, with a crash between.
quick
disk a 2048
disk b 2048

make d
  0 1200 striped 3 8 @a 0 @b 0 @a 1024
  1200 100 linear @b 1900
write d 0 1300 by 13
read d 0 1300 by 128
swap
make d
  0 1200 striped 3 8 @a 0 @b 0 @a 1024
  1200 100 linear @b 1900
read d 0 1300 by 128
write d 600 700 by 50
swap crash
make d
  0 1200 striped 3 8 @a 0 @b 0 @a 1024
  1200 100 linear @b 1900
read d 0 1300 by 128
write d 5 5
restart
make d
  0 100 linear @a 0
read d 0 100
check cmp -n 4096 $a $a && test $(blockdev --getsz $b) = 2048
