# Messages: to targets that take none, to sectors outside, to nobody.
quick
disk a 512

make d
  0 64 linear @a 0
  64 64 zero
message d 0 hello
message d 64 hello there
message d 127 hello
message d 128 hello
message d 0
message none 0 hello
create empty
message empty 0 hello
differs EINVAL ENXIO there is no table to take it
message empty 0
differs EINVAL ENXIO as above
geometry d 16 8 4 0
geometry d 16 8 4
geometry d 16 8 4 100000
geometry d x 8 4 0
geometry d 65536 8 4 0
geometry d 16 256 4 0
geometry d 16 8 256 0
geometry none 16 8 4 0
geometry empty 16 8 4 0
info d
