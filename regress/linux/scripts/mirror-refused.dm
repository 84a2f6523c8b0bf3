# mirror: tables that are refused. Those that are not begin to copy: `private`.
needs mirror
disk a 2048
disk b 2048 private
disk l 2 zero
disk m 16 zero private

try d
  0 1000 mirror
try d
  0 1000 mirror core
try d
  0 1000 mirror core 1
try d
  0 1000 mirror core 1 64
try d
  0 1000 mirror core 1 64 2
try d
  0 1000 mirror core 1 64 2 @a
try d
  0 1000 mirror core 1 64 2 @a 0
try d
  0 1000 mirror core 1 64 2 @a 0 @b
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0
try d
  0 1000 mirror core 0 2 @a 0 @b 0
try d
  0 1000 mirror core 4 64 sync block_on_error x 2 @a 0 @b 0
try d
  0 1000 mirror core 2 64 x 2 @a 0 @b 0
try d
  0 1000 mirror core 2 64 block_on_error 2 @a 0 @b 0
differs "load EINVAL" "ok" the older word for handle_errors, which NetBSD's lvm sends and Linux no longer knows
try d
  0 1000 mirror core 3 64 sync nosync 2 @a 0 @b 0
try d
  0 1000 mirror core 3 64 sync sync 2 @a 0 @b 0
try d
  0 1000 mirror core x 64 2 @a 0 @b 0
try d
  0 1000 mirror nosuch 1 64 2 @a 0 @b 0
try d
  0 1000 mirror disk 1 64 2 @a 0 @b 0
differs "load EINVAL" "load ENOENT" we look for the device before we count further
try d
  0 1000 mirror disk 1 @m 2 @a 0 @b 0
try d
  0 1000 mirror disk 2 @m 2 @a 0 @b 0
try d
  0 1000 mirror disk 0 2 @a 0 @b 0
try d
  0 1000 mirror disk 3 @m 64 x 2 @a 0 @b 0
try d
  0 1000 mirror disk 4 @m 64 nosync block_on_error 2 @a 0 @b 0
differs "load EINVAL" "ok" the older word, as above
try d
  0 1000 mirror disk 3 @m 64 block_on_error 2 @a 0 @b 0
differs "load EINVAL" "ok" the older word, as above
try d
  0 1000 mirror disk 2 nosuch 64 2 @a 0 @b 0
differs "load EINVAL" "load ENOENT" Linux says EINVAL of all that is wrong with a log
try d
  0 1000 mirror disk 2 @l 64 2 @a 0 @b 0

# Regions.
try d
  0 1000 mirror core 1 0 2 @a 0 @b 0
try d
  0 1000 mirror core 1 1 2 @a 0 @b 0
try d
  0 1000 mirror core 1 2 2 @a 0 @b 0
try d
  0 1000 mirror core 1 3 2 @a 0 @b 0
try d
  0 1000 mirror core 1 512 2 @a 0 @b 0
try d
  0 1000 mirror core 1 1024 2 @a 0 @b 0
try d
  0 1024 mirror core 1 1024 2 @a 0 @b 0
try d
  0 1000 mirror core 1 x 2 @a 0 @b 0
try d
  0 1000 mirror core 1 64x 2 @a 0 @b 0
try d
  0 1000 mirror core 1 -64 2 @a 0 @b 0
try d
  0 1000 mirror core 1 4294967360 2 @a 0 @b 0
differs "ok" "load EINVAL" Linux cuts the number to 32 bits
try d
  0 1 mirror core 1 2 2 @a 0 @b 0

# Legs.
try d
  0 1000 mirror core 1 64 0
try d
  0 1000 mirror core 1 64 1 @a 0
try d
  0 100 mirror core 1 64 10 @a 0 @a 100 @a 200 @a 300 @a 400 @a 500 @a 600 @a 700 @a 800 @a 900
try d
  0 1000 mirror core 1 64 x @a 0 @b 0
try d
  0 1000 mirror core 1 64 2 nosuch 0 @b 0
try d
  0 1000 mirror core 1 64 2 @a 0 nosuch 0
try d
  0 1000 mirror core 1 64 2 @a x @b 0
try d
  0 1000 mirror core 1 64 2 @a -1 @b 0
try d
  0 1000 mirror core 1 64 2 @a 0 @b 1048
try d
  0 1000 mirror core 1 64 2 @a 0 @b 1049
try d
  0 1000 mirror core 1 64 2 @a 18446744073709551615 @b 0
try d
  0 1000 mirror core 1 64 2 @a 0 @a 0

# Features.
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 0
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 0 more
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 1
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 x
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 1 nosuch
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 1 HANDLE_ERRORS
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 1 keep_log
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 2 keep_log handle_errors
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 2 handle_errors
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 2 handle_errors handle_errors
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 3 handle_errors keep_log nosuch
try d
  0 1000 mirror core 1 64 2 @a 0 @b 0 1 handle_errors more
try d
  0 1000 mirror core 3 64 nosync block_on_error 2 @a 0 @b 0 1 handle_errors
differs "load EINVAL" "ok" the older word and the newer
