// SPDX-License-Identifier: Apache-2.0
// The operations on pairs, of one register, as functions of arrays. Included in each target's own namespace.

constexpr int kLanes = Vec<float>::kLanes;

// sum = dot_pairs(a, b, sum)
void dot(const float* a, const float* b, float* sum) {
  dot_pairs(Vec<float>::load(a), Vec<float>::load(b), Vec<float>::load(sum)).store(sum);
}

void pack(const float* even, const float* odd, float* pair) {
  pack_pairs(Vec<float>::load(even), Vec<float>::load(odd)).store(pair);
}

void splat(const std::uint16_t* p, float* pair) { splat_pair(p).store(pair); }
