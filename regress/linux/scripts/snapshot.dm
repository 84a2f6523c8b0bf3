# snapshot and snapshot-origin: status and content after each step, the store byte for byte, and
# carried on by the other side.
needs snapshot
disk a 2048
disk c 1100 zero

make o
  0 2048 snapshot-origin @a
status o
table o
make s
  0 2048 snapshot @a @c P 8
table s
status s
image c 0 16
# One chunk after the other, so that their order is determined.
write o 0 8
status s
write o 100 4
status s
write o 101 1
status s
read s 0 128
read o 0 128
image c 0 64
# Through the snapshot: a whole chunk, and a part of one.
write s 200 8
status s
write s 300 3
status s
write s 201 2
status s
read s 0 2048 by 64
read o 0 2048 by 64
image c 0 1100
flush s
flush o
# The last chunk.
write o 2040 8
write o 2047 1
status s
read s 2000 48
suspend s
status s
write o 600 8
resume s
status s
read s 600 8
image c 0 1100
# The same table again takes the exceptions over.
load s
  0 2048 snapshot @a @c P 8
status s inactive
differs "0 2048 snapshot 0/1100 0" "0 2048 snapshot 64/1100 16" ours shows what it will take over
table s inactive
differs "0 2048 snapshot @a @c P 0" "0 2048 snapshot @a @c P 8" as above
suspend s
resume s
status s
table s
read s 0 2048 by 64
write o 700 1
status s
remove s
write o 800 1
swap
# Goes on with the other side's snapshot; the size of its chunks is the store's.
make o
  0 2048 snapshot-origin @a
make s
  0 2048 snapshot @a @c P 16
table s
status s
read s 0 2048 by 64
write o 1000 1
write s 1200 10 by 1
status s
image c 0 1100
swap crash
make o
  0 2048 snapshot-origin @a
make s
  0 2048 snapshot @a @c P 0
table s
status s
read s 0 2048 by 64
write o 1300 100 by 4
write s 1500 100 by 4
status s
read s 0 2048 by 64
