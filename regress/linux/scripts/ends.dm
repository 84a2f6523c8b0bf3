# I/O at and across a device's end, in odd places and lengths.
quick
disk a 1024

make d
  0 101 linear @a 7
size d
read d 100 1
read d 100 2
read d 101 1
read d 102 1
read d 93 16
write d 100 1
write d 100 2
write d 101 1
write d 102 8
image a 0 120
discard d 100 1
discard d 100 2
discard d 101 1
read d 0 101 by 3
image a 0 120
read d 4503599627370495 1
read d 36028797018963967 1
read a 1023 1
read a 1023 2
read a 1024 1
write a 1023 2
write a 1024 1
