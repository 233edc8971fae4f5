# Builds libaom without an assembler, slower, where NASM is missing (Makefile).
set(AOM_TARGET_CPU generic CACHE STRING "")
