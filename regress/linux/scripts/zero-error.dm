# zero and error: alone, and between lines that work.
quick
needs zero error
disk a 1024

make z
  0 100 zero
table z
status z
deps z
read z 0 100 by 50
write z 0 100 by 50
read z 0 100 by 100
discard z 0 100
differs "* EOPNOTSUPP" ok this Linux has no discards for zero
flush z
size z
info z
remove z

make e
  0 100 error
table e
status e
deps e
read e 0 8
write e 0 8
discard e 0 8
differs "* EOPNOTSUPP" "* EIO" it has none for error, and we fail all I/O there
size e
info e
remove e

# A hole of errors: what is before and behind works, and what touches it fails.
make hole
  0 32 linear @a 0
  32 16 error
  48 16 zero
  64 64 linear @a 64
table hole
status hole
read hole 0 128 by 8
read hole 30 4
read hole 24 8
read hole 44 4
read hole 46 4
write hole 0 128 by 8
write hole 28 8
image a 0 128
read hole 0 32
read hole 48 80
size hole
