# mirror: a leg that fails, an error table, with each of the features. How many events there are is not compared: we
# raise one for each kind of failure, and without features too.
needs mirror
disk a 2048
# The same, as nosync says.
disk b 2048 like a
disk l 16 zero private

make e
  0 2048 error

# Without features: the first leg has it.
make d
  0 1000 mirror core 2 64 nosync 2 @a 0 @e 0
write d 0 8
until d * 15/16 1 AD *
read d 0 8
remove d

# With a log's word more the write waits, and goes by the next table.
make d
  0 1000 mirror core 2 64 nosync 2 @a 0 @e 0 1 handle_errors
start w write d 100 8
until d * 15/16 1 AD *
pending w
load d
  0 1000 mirror core 2 64 nosync 2 @a 0 @b 0 1 handle_errors
suspend d noflush
resume d
finish w
read d 64 64
status d
remove d
image a 0 1000

# Else it fails.
make d
  0 1000 mirror core 2 64 nosync 2 @a 0 @e 0 1 handle_errors
start w write d 200 8
until d * 15/16 1 AD *
suspend d
finish w
remove d

# keep_log: the write is done.
make d
  0 1000 mirror core 2 64 nosync 2 @a 0 @e 0 2 handle_errors keep_log
write d 300 8
until d * 15/16 1 AD *
remove d

# All legs fail.
make d
  0 1000 mirror core 2 64 nosync 2 @e 0 @e 1024
write d 0 8
read d 0 8
until d * 1 DD *
remove d

