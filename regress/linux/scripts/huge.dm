# Disks and devices of many terabytes: places beyond 2^31, 2^32 and 2^41 sectors.
disk a 17179869184 zero
disk b 8589934592 zero

make d
  0 17179869184 linear @a 0
  17179869184 4294967296 linear @b 4294967296
  21474836480 8 zero
size d
table d
write d 4294967290 16
write d 8589934590 4
write d 17179869180 8
read d 4294967280 32
read d 8589934580 20
read d 17179869176 16
read d 21474836476 8
image a 17179869180 4
image b 4294967296 4
remove d

try s
  0 17179869184 striped 2 4294967296 @a 0 @b 0
differs "load EINVAL" ok a chunk has at most 32 bits in Linux
make s
  0 17179869184 striped 2 2147483648 @a 0 @b 0
write s 2147483640 16
write s 4294967290 12
read s 2147483632 32
image b 0 8
image a 2147483648 8
remove s

make far
  0 4398046511104 zero
  4398046511104 4398046511 linear @a 1000000
size far
write far 4398046511100 8
read far 4398046511096 16
write far 4402444557607 8
read far 4402444557600 15
image a 1000000 8
