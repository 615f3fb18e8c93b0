// SPDX-License-Identifier: Apache-2.0
// The structures of DLPack 1, as they lie in memory (dmlc.github.io/dlpack): what a capsule of __dlpack__ points to.
#pragma once

#include <cstdint>

namespace face::dlpack {

enum Device : int32_t { cpu = 1, cuda = 2, cuda_host = 3, rocm = 10, rocm_host = 11 };
enum Code : uint8_t {
  int_code = 0,
  uint_code = 1,
  float_code = 2,
  bfloat_code = 4,
  bool_code = 6,
  other_code = 255  // none of DLPack: what is not read
};
enum Flag : uint64_t { read_only = 1 };

struct Element {
  uint8_t code = other_code;
  uint8_t bits = 0;
  uint16_t lanes = 1;
};

struct Tensor {
  void* data;
  int32_t device_type;
  int32_t device_id;
  int32_t rank;
  Element element;
  int64_t* shape;
  int64_t* strides;  // in elements; NULL: contiguous
  uint64_t byte_offset;
};

struct Managed {  // capsule "dltensor"
  Tensor tensor;
  void* context;
  void (*release)(Managed*);
};

struct Versioned {  // capsule "dltensor_versioned"
  uint32_t major, minor;
  void* context;
  void (*release)(Versioned*);
  uint64_t flags;
  Tensor tensor;
};

}  // namespace face::dlpack
