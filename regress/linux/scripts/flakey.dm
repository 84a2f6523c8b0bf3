# flakey: its features while it is bad (an up interval of 0 is bad all the time), their words, and what
# is refused. error_reads, random_read_corrupt and random_write_corrupt came to Linux after 6.1.
needs flakey
disk a 1024

make d
  0 100 flakey @a 0 4294967295 0
table d
status d
read d 0 100 by 8
write d 0 10
remove d
make d
  0 100 flakey @a 5 0 10
table d
read d 0 8
write d 0 8
flush d
discard d 0 8
remove d
make d
  0 100 flakey @a 5 0 10 1 drop_writes
table d
read d 0 8
write d 0 8
read d 0 8
image a 0 64
remove d
make d
  0 100 flakey @a 5 0 10 1 ERROR_WRITES more words
table d
read d 0 8
write d 0 8
flush d
remove d
make d
  0 100 flakey @a 8 0 10 5 corrupt_bio_byte 32 r 1 0
table d
image a 8 8
read d 0 8
differs "4096 bytes, **" "4096 bytes, **" Linux 6.1 reads what is there: it looks for the data behind their end
write d 0 8
image a 0 64
remove d
make d
  0 100 flakey @a 8 0 10 5 corrupt_bio_byte 600 w 2 0
table d
write d 0 8
write d 8 1
read d 0 16
image a 0 64
remove d
make d
  0 100 flakey @a 8 0 10 5 corrupt_bio_byte 4 W 255 1
write d 16 8
image a 0 64
table d
remove d
make d
  0 100 flakey @a 8 0 10 5 corrupt_bio_byte 4 w 255 2
write d 24 8
image a 0 64
remove d
make d
  0 100 flakey @a 0 0 10 6 corrupt_bio_byte 32 r 1 0 drop_writes
table d
write d 0 8
image a 0 8
read d 0 8
differs "4096 bytes, **" "4096 bytes, **" as above
remove d
make d
  0 100 flakey @a 0 5 5 0
table d
remove d

try d
  0 100 flakey
try d
  0 100 flakey @a 0
try d
  0 100 flakey @a 0 5
try d
  0 100 flakey @a 0 0 0
try d
  0 100 flakey @a 0 5 5 1
try d
  0 100 flakey @a 0 5 5 2 drop_writes
try d
  0 100 flakey @a 0 5 5 2 drop_writes error_writes
try d
  0 100 flakey @a 0 5 5 2 error_writes drop_writes
try d
  0 100 flakey @a 0 5 5 2 drop_writes drop_writes
try d
  0 100 flakey @a 0 5 5 2 error_writes error_writes
try d
  0 100 flakey @a 0 5 5 5 corrupt_bio_byte 0 w 1 0
try d
  0 100 flakey @a 0 5 5 5 corrupt_bio_byte 32 x 1 0
try d
  0 100 flakey @a 0 5 5 5 corrupt_bio_byte 32 rw 1 0
try d
  0 100 flakey @a 0 5 5 5 corrupt_bio_byte 32 r 256 0
try d
  0 100 flakey @a 0 5 5 5 corrupt_bio_byte 4294967296 r 1 0
try d
  0 100 flakey @a 0 5 5 4 corrupt_bio_byte 32 r 1
try d
  0 100 flakey @a 0 5 5 1 corrupt_bio_byte
try d
  0 100 flakey @a 0 5 5 6 corrupt_bio_byte 32 w 1 0 drop_writes
try d
  0 100 flakey @a 0 5 5 6 corrupt_bio_byte 32 w 1 0 error_writes
try d
  0 100 flakey @a 0 5 5 1 nosuch
try d
  0 100 flakey @a 0 5 5 x
try d
  0 100 flakey @a 0 5 5 13
try d
  0 100 flakey @a 0 5 x
try d
  0 100 flakey @a 0 x 5
try d
  0 100 flakey @a x 5 5
try d
  0 100 flakey @a 0 4294967295 5
