# Edges of striped: chunks of one sector and of odd lengths, one stripe, many, offsets; data across every border.
quick
needs striped
disk a 4096
disk b 4096
disk c 4099

# Three stripes, a chunk that is no power of two.
make odd
  0 90 striped 3 5 @a 0 @b 7 @c 4069
table odd
status odd
deps odd
size odd
read odd 0 90 by 1
read odd 0 90 by 90
read odd 3 11 by 4
write odd 1 88
read odd 0 90 by 7
remove odd

# Chunks of one sector.
make one
  0 64 striped 2 1 @a 1 @b 2
read one 0 64 by 3
write one 5 50
read one 0 64 by 64
remove one
restart

# One stripe is linear.
make single
  0 128 striped 1 16 @a 100
table single
status single
read single 15 40
write single 15 2
remove single

# The same disk twice, and a chunk as large as a stripe.
make twice
  0 256 striped 2 128 @a 0 @a 1024
read twice 120 16
write twice 120 16
deps twice
remove twice

# Behind another line, so that the line's first sector is not the device's.
make behind
  0 7 linear @c 0
  7 48 striped 3 8 @a 16 @b 16 @c 16
  55 9 zero
read behind 0 64 by 64
write behind 5 40
read behind 0 64 by 5
table behind
remove behind
restart

# Four, and chunks of 4 KiB and more, with I/O of 64 KiB across all.
make four
  0 4096 striped 4 8 @a 0 @b 0 @c 0 @a 2048
write four 3 128
write four 1000 3000 by 128
read four 0 4096 by 128
restart
make four
  0 4096 striped 4 64 @a 0 @b 0 @c 0 @a 2048
write four 63 2
write four 127 128
read four 0 4096 by 128
discard four 64 256
read four 0 512 by 128
flush four
