# log-writes: the log's bytes, what goes into it when, its status and messages. Each request ends before
# the next begins, so that the order is determined. The log is looked at when its device has gone: until then the
# superblock may be behind the status. Behind the log each side keeps what it likes. Linux cuts discards at its
# granularity, 4 KiB.
needs log-writes
disk a 1024
disk l 4096 private
disk b 64 block 4096
disk m 4096 block 4096 private
disk c 1024
disk s 24 private
replays l a
replays m b

make d
  0 1000 log-writes @a @l
table d
status d
deps d
size d
# A mark goes to the log at once, and the superblock with it.
message d 0 mark first
until d * 1 1
# Writes wait for a flush.
write d 10 8
write d 20 1
status d
read d 8 16
message d 500 MARK Second,text:with/others
until d * 2 2
flush d
until d * 5 *
status d
write d 10 8
write d 14 40 by 10
discard d 104 64
write d 106 2
flush d
until d * 13 *
status d
message d 0 mark third
until d * 14 *
# Wrong ones.
message d 0 mark
message d 0 mark a b
message d 0 nosuch a
message d 0
# Writes that no flush made durable come at the end.
write d 200 128
write d 210 3
discard d 304 8
remove d
image l 0 270

# Sectors of 4,096 bytes.
make e
  0 64 log-writes @b @m
status e
write e 8 16
write e 32 8
flush e
until e * 3 *
status e
message e 0 mark here
until e * 4 *
write e 0 8
remove e
image m 0 80

# A log that has no room.
make f
  0 1000 log-writes @c @s
write f 0 1
flush f
until f * 2 *
write f 0 64
flush f
until f * 2 * logging_disabled
status f
differs "* 2 68 logging_disabled" "* 2 3 logging_disabled" Linux counts the sectors for which there was no room
write f 8 16
flush f
read f 0 64
remove f

try d
  0 1000 log-writes
try d
  0 1000 log-writes @c
try d
  0 1000 log-writes @c @s more words
try d
  0 2000 log-writes @c @s
try d
  0 1000 log-writes nosuch @s
try d
  0 1000 log-writes @c nosuch
