// SPDX-License-Identifier: Apache-2.0
// Bytes of a mask to bits, for targets without an instruction that gathers them.

// Bit i is set where byte i of 32 is not zero: each byte is folded to its lowest bit, and a product gathers eight.
MULTIHEAD_INLINE std::uint32_t nonzero_bytes(const std::uint8_t* p) {
  std::uint32_t bits = 0;
  for (int word = 0; word < 4; ++word) {
    std::uint64_t x;
    __builtin_memcpy(&x, p + 8 * word, sizeof x);
    x |= x >> 4, x |= x >> 2, x |= x >> 1;
    x &= 0x0101010101010101u;
    bits |= static_cast<std::uint32_t>((x * 0x0102040810204080u) >> 56) << (8 * word);
  }
  return bits;
}
