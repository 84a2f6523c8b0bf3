# crypt: keys taken away and set again, while a device is suspended and while it is not.
needs crypt
disk a 1024
disk b 1024

make d
  0 100 crypt aes-xts-plain64 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 0 @a 0
write d 0 100 by 10
message d 0 key wipe
message d 0 key set 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
message d 0 key
message d 0 nosuch
suspend d
message d 0 key
message d 0 nosuch wipe
message d 0 key nosuch
message d 0 key set
message d 0 key set 00
message d 0 key set 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f2021
message d 0 key set zz0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
table d
message d 0 key wipe
table d
status d
info d
resume d
info d
message d 0 key wipe
message d 0 key wipe x
message d 0 KEY SET 000102030405060708090A0b0c0d0e0f101112131415161718191a1b1c1d1e1f
table d
resume d
read d 0 100 by 16

# Another key reads other data; the right one the old.
suspend d
message d 0 key set ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
resume d
read d 0 100 by 16
suspend d
message d 0 key set 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
resume d
read d 0 100 by 16
suspend d
message d 0 key set 000102030405060708090a0b0c0d0e0f000102030405060708090a0b0c0d0e0f
message d 0 key set 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
resume d
read d 0 10

# A key that was set wrong leaves what?
suspend d
message d 0 key set 00
table d
resume d
read d 0 10
suspend d
message d 0 key set 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
resume d
read d 0 10

# A new table brings its own key; the old key wiped does not matter then.
suspend d
message d 0 key wipe
load d
  0 100 crypt aes-xts-plain64 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 0 @a 0
resume d
read d 0 100 by 16
remove d

# essiv: what was made of the key goes with it.
make d
  0 100 crypt aes-cbc-essiv:sha256 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f 0 @b 0
write d 0 100 by 10
suspend d
message d 0 key set ff0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
resume d
read d 0 100 by 16
suspend d
message d 0 key wipe
message d 0 key set 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
resume d
read d 0 100 by 16
remove d

# The cipher that has no key.
make d
  0 100 crypt cipher_null-ecb - 0 @b 0
suspend d
message d 0 key wipe
message d 0 key set -
resume d
resume d
message d 0 key set 00
table d
remove d
