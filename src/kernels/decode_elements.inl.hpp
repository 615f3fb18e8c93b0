// SPDX-License-Identifier: Apache-2.0
// Decode of a cache of any elements, all of them multiplied as floats.

inline void decode_task(const DecodeTask& task) noexcept {
  switch (task.cache.element) {
    case Element::float32:
      return decode_rows<DecodeProducts<Element::float32>>(task);
    case Element::bfloat16:
      return decode_rows<DecodeProducts<Element::bfloat16>>(task);
    case Element::float16:
      return decode_rows<DecodeProducts<Element::float16>>(task);
    case Element::int8:
      return decode_rows<DecodeProducts<Element::int8>>(task);
  }
}
