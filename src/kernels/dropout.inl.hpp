// SPDX-License-Identifier: Apache-2.0
// The factors of dropout, drawn again wherever they are needed: 0 or 1 / (1 - probability), a lane a row.

constexpr int kWideLanes = static_cast<int>(sizeof(WideWords) / 8);
constexpr int kDrawLanes = 2 * kWideLanes;  // rows of one draw, in two registers so that one need not wait for itself
static_assert(kRowBlock % kDrawLanes == 0);

// Rounds 2 to 10 of philox4x32; c: the counter after the first.
MULTIHEAD_INLINE void philox_rounds(WideWords (&c)[4][2], std::uint64_t seed) {
  const WideWords factor0 = WideWords{} + kPhiloxFactor0, factor1 = WideWords{} + kPhiloxFactor1;
  auto key0 = static_cast<std::uint32_t>(seed), key1 = static_cast<std::uint32_t>(seed >> 32);
  MULTIHEAD_UNROLL
  for (int round = 1; round < kPhiloxRounds; ++round) {
    key0 += kPhiloxKey0, key1 += kPhiloxKey1;
    MULTIHEAD_UNROLL
    for (int i = 0; i < 2; ++i) {
      const WideWords a = product_of_words(c[0][i], factor0), b = product_of_words(c[2][i], factor1);
      c[0][i] = (b >> 32) ^ c[1][i] ^ key0, c[1][i] = b;
      c[2][i] = (a >> 32) ^ c[3][i] ^ key1, c[3][i] = a;
    }
  }
}

// The factors of kDrawLanes rows: in float the lanes of the two registers take turns.
template <class T>
MULTIHEAD_INLINE void store_factors(const WideWords (&words)[2], std::uint32_t bound, T factor, T* to) {
  typedef std::uint32_t Words __attribute__((vector_size(sizeof(WideWords))));
  typedef std::int64_t Signed __attribute__((vector_size(sizeof(WideWords))));
  const WideWords low = WideWords{} + 0xFFFFFFFF;
  if constexpr (sizeof(T) == 4) {
    const Words both = (Words)((words[0] & low) | (words[1] << 32));
    const Words kept = (Words)(both >= Words{} + bound) & std::bit_cast<std::uint32_t>(factor);
    __builtin_memcpy(to, &kept, sizeof kept);
  } else {
    MULTIHEAD_UNROLL
    for (int i = 0; i < 2; ++i) {
      const WideWords stay = (WideWords)((Signed)(words[i] & low) >= Signed{} + std::int64_t{bound});
      const WideWords kept = stay & std::bit_cast<std::uint64_t>(factor);
      __builtin_memcpy(to + i * kWideLanes, &kept, sizeof kept);
    }
  }
}

// Lines [begin, end) of a panel [kKeyBlock][kRowBlock] whose line 0 is a key of the task's sequence; rows are rounded
// up to kDrawLanes. Four keys of the tensors make a draw.
template <class T>
MULTIHEAD_NOINLINE void draw_factors(const DropoutTask<T>& dropout, std::int64_t key, int begin, int end, int rows,
                                     T* panel) {
  constexpr int kStep = sizeof(T) == 4 ? 2 : 1;  // from lane to lane of a register
  WideWords lanes[2];
  for (int i = 0; i < kWideLanes; ++i)
    for (int r = 0; r < 2; ++r) lanes[r][i] = static_cast<std::uint64_t>(kStep * i + r * (kStep == 2 ? 1 : kWideLanes));
  const std::uint64_t b = std::uint64_t{kPhiloxFactor1} * dropout.bh;
  const std::int64_t first = dropout.key + key;
  for (std::int64_t quad = (first + begin) / 4; quad * 4 < first + end; ++quad) {
    const auto line = static_cast<int>(quad * 4 - first);
    const std::uint64_t a = std::uint64_t{kPhiloxFactor0} * static_cast<std::uint32_t>(quad);
    for (int lane = 0; lane < rows; lane += kDrawLanes) {
      WideWords c[4][2];
      MULTIHEAD_UNROLL
      for (int i = 0; i < 2; ++i) {
        const WideWords row = lanes[i] + (dropout.row + static_cast<std::uint64_t>(lane));
        c[0][i] = row ^ ((b >> 32) ^ static_cast<std::uint32_t>(dropout.seed)), c[1][i] = WideWords{} + b;
        c[2][i] = WideWords{} + ((a >> 32) ^ dropout.stream ^ (dropout.seed >> 32)), c[3][i] = WideWords{} + a;
      }
      philox_rounds(c, dropout.seed);
      for (int word = 0; word < 4; ++word)
        if (begin <= line + word && line + word < end)
          store_factors<T>(c[word], dropout.bound, dropout.factor, panel + (line + word) * kRowBlock + lane);
    }
  }
}
