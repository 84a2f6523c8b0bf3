# switch: regions on paths, changed by messages.
needs switch
disk a 1024
disk b 1024
disk c 1024

make d
  0 250 switch 3 16 0 @a 0 @b 100 @c 700
table d
status d
deps d
size d
read d 0 250 by 11
write d 3 240 by 90
image a 0 1024
image b 0 1024
image c 0 1024
message d 0 set_region_mappings 0:2
read d 0 16
message d 0 set_region_mappings 1:0 :0 :1
read d 0 250 by 100
message d 0 set_region_mappings 5:1 R1,3
read d 80 64
message d 0 set_region_mappings 0:0 :1 R2,4
write d 0 120
read d 0 250 by 100
status d
table d
info d
# Wrong ones.
message d 0 set_region_mappings
message d 0 set_region_mappings 0
message d 0 set_region_mappings 0:3
message d 0 set_region_mappings 10:0
message d 0 set_region_mappings f:0
message d 0 set_region_mappings :0
message d 0 set_region_mappings x:0
message d 0 set_region_mappings R1,1
message d 0 set_region_mappings 0:1 R2,1
message d 0 set_region_mappings 0:1 R0,1
message d 0 set_region_mappings 0:1 R1,0
message d 0 set_region_mappings 0:1 R1,99
message d 0 other 0:1
message d 0 set_region_mappings 2:1 3:9
read d 0 250 by 50
discard d 0 16
# Wrong tables.
try w
  0 64 switch 0 16 0
try w
  0 64 switch 2 0 0 @a 0 @b 0
try w
  0 64 switch 2 16 1 @a 0 @b 0
try w
  0 64 switch 2 16 0 @a 0
try w
  0 64 switch 2 16 0 @a 0 @b
try w
  0 64 switch 2 16 0 @a 0 @b 0 1
try w
  0 64 switch 2 16 0 @a 0 @b x
try w
  0 64 switch x 16 0 @a 0 @b 0
try w
  0 64 switch 2 16 0 @a 0 @b 1000
try w
  0 64 switch 1 24 0 @a 0
