# snapshot: chunks of one sector, 32 exceptions in an area: areas become full one after the other; two
# snapshots of one origin with chunks of different sizes; a snapshot shorter than its origin; N.
needs snapshot
disk a 1000
disk c 1100 zero
disk d 2000 zero
disk e 400

make o
  0 1000 snapshot-origin @a
make s
  0 1000 snapshot @a @c P 1
make t
  0 1000 snapshot @a @d P 32
make n
  0 500 snapshot @a @e N 4
status n
table n
write o 10 31 by 1
status s
status t
status n
image c 0 80
write o 41 1
status s
image c 0 80
write o 42 1
status s
image c 0 80
write o 700 70 by 1
status s
status t
status n
image c 0 200
write s 300 100 by 1
status s
write n 0 60 by 4
write n 100 3
status n
write t 900 64 by 32
write t 31 2
status t
read s 0 1000 by 50
read t 0 1000 by 50
read n 0 500 by 50
read o 0 1000 by 50
image c 0 1100
image d 0 2000
remove n
swap
make o
  0 1000 snapshot-origin @a
make s
  0 1000 snapshot @a @c P 1
make t
  0 1000 snapshot @a @d PO 32
table t
status s
status t
read s 0 1000 by 50
read t 0 1000 by 50
write o 0 1000 by 1
status s
status t
read s 0 1000 by 50
read t 0 1000 by 50
image c 0 1100
