# snapshot: discards, with each feature and with none.
needs snapshot
disk a 2048
disk c 600 zero
disk e 600 zero

make o
  0 2048 snapshot-origin @a
discard o 0 8
make s
  0 2048 snapshot @a @c P 8
write s 0 16 by 8
discard s 0 8
read s 0 16
remove s
make s
  0 2048 snapshot @a @c P 8 1 discard_zeroes_cow
table s
write s 32 8
discard s 0 8
status s
read s 0 64
discard s 32 8
discard s 100 100
status s
read s 0 256 by 64
remove s
make s
  0 2048 snapshot @a @e P 8 2 discard_zeroes_cow discard_passdown_origin
table s
write s 0 8
discard s 0 8
status s
read s 0 8
read s 8 56
