// SPDX-License-Identifier: Apache-2.0
// A cache of keys and values that grows with its sequences, and attention over it.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>

#include "multihead/attention.hpp"
#include "multihead/tensor.hpp"
#include "multihead/types.hpp"

namespace multihead {

// How keys and values are stored. int8: x / scale rounded to nearest, ties to even, -127 to 127; scales are float32.
enum class KvStorage { float32, bfloat16, float16, int8 };

// Whose scales int8 has: of each position of a head, the largest magnitude of its key (value) / 127, found while it is
// appended (0 where all are 0); or of each channel of a head, given with the cache, and what is larger is cut off.
enum class KvScales { per_token, per_channel };

// What a cache is made of. Positions lie in pages, which sequences share and give back. A contiguous cache is one whose
// page holds a whole sequence: pages = sequences, page_len = the longest.
struct KvCacheSpec {
  KvStorage storage = KvStorage::float32;
  std::int64_t layers = 1;
  std::int64_t kv_heads = 0;
  std::int64_t head_dim = 0;                   // 1 to 1024
  std::optional<std::int64_t> value_dim = {};  // head_dim unless given; 1 to 1024
  std::int64_t pages = 0;                      // in all, of all sequences; less than 2^31
  std::int64_t page_len = 128;                 // positions of a page: a multiple of 32
  // Sliding: a query sees at most `window` keys before its own, and the first ones; pages that no coming query can see
  // are given back while a sequence grows.
  std::optional<std::int64_t> window = {};
  std::int64_t first = 0;                           // leading positions that stay; with window only
  KvScales scales = KvScales::per_token;            // of int8
  View3<const float> k_scales = {}, v_scales = {};  // (layers, kv_heads, head_dim / value_dim), positive; per_channel
};

// Names a sequence of one cache; no two of a process are equal, none is 0. A name that was given back, or is another
// cache's, is refused.
enum class KvSequence : std::uint64_t {};

struct KvRange {
  std::int64_t begin = 0, end = 0;
};

// Rows of an int8 cache as they are stored; T and Scale const where they are read.
template <class T, class Scale>
struct ScaledRows {
  View3<T> rows = {};             // (kv_heads, count, head_dim / value_dim), -127 to 127; last axis contiguous
  MatrixView<Scale> scales = {};  // (kv_heads, count), of per_token alone; last axis contiguous
};

// Keys and values of any number of sequences, layer by layer. A position of a sequence is the place of its token,
// counted from 0; each layer of a sequence grows by itself (a step appends to layer after layer), and a page holds its
// positions for all layers.
//
// Memory is allocated once, by the constructor, but for the lists of sequences. Not for many threads at once where one
// of them changes it; attention() on it may be called from many threads. Every call throws Error before anything is
// changed: bad_option, shape_mismatch, out_of_memory (pages that are free do not suffice). A cache that was moved from
// has no sequences, no pages, and no call but destruction and assignment.
class KvCache {
 public:
  explicit KvCache(const KvCacheSpec& spec);
  ~KvCache();
  KvCache(KvCache&&) noexcept;
  KvCache& operator=(KvCache&&) noexcept;

  const KvCacheSpec& spec() const noexcept;  // its scales are views of the cache's own
  std::int64_t sequences() const noexcept;
  std::int64_t free_pages() const noexcept;

  KvSequence add();  // an empty sequence
  // A sequence of the same first `length` positions (all of them unless given). Their pages are shared; whoever then
  // writes into a shared page copies it first. The rule of truncate() holds.
  KvSequence fork(KvSequence sequence, std::optional<std::int64_t> length = {});
  void remove(KvSequence sequence);
  // Forgets positions from length on, in every layer; at most the length of the longest layer. Of a sliding cache not
  // so far that a query to come wants a key that was given back.
  void truncate(KvSequence sequence, std::int64_t length);
  std::int64_t length(KvSequence sequence, std::int64_t layer = 0) const;
  // The positions of a sliding cache that were given back: whole pages; {0, 0}: none.
  KvRange given_back(KvSequence sequence) const;

  // Appends the same number of positions to each sequence: k (sequences, kv_heads, tokens, head_dim), v (..,
  // value_dim). With cu_seqlens (sequences + 1) the positions lie one after another, and batch is 1. Last axes
  // contiguous. Each sequence once. The type must be the storage's; int8 takes any of the three, and refuses what is
  // not finite. A sliding cache first gives back the pages that lie wholly after `first` and before the window of the
  // shortest layer's next position, as it was before the call.
  void append(std::int64_t layer, std::span<const KvSequence> sequences, View4<const float> k, View4<const float> v,
              std::span<const std::int64_t> cu_seqlens = {});
  void append(std::int64_t layer, std::span<const KvSequence> sequences, View4<const BFloat16> k,
              View4<const BFloat16> v, std::span<const std::int64_t> cu_seqlens = {});
  void append(std::int64_t layer, std::span<const KvSequence> sequences, View4<const Float16> k, View4<const Float16> v,
              std::span<const std::int64_t> cu_seqlens = {});

  // Positions [first, first + count) of a layer: k (kv_heads, count, head_dim), v (kv_heads, count, value_dim), last
  // axes contiguous. The type must be the storage's; an int8 cache gives float as stored * scale. Positions that were
  // given back are refused.
  void read(std::int64_t layer, KvSequence sequence, std::int64_t first, View3<float> k, View3<float> v) const;
  void read(std::int64_t layer, KvSequence sequence, std::int64_t first, View3<BFloat16> k, View3<BFloat16> v) const;
  void read(std::int64_t layer, KvSequence sequence, std::int64_t first, View3<Float16> k, View3<Float16> v) const;
  void read(std::int64_t layer, KvSequence sequence, std::int64_t first, const ScaledRows<std::int8_t, float>& k,
            const ScaledRows<std::int8_t, float>& v) const;
  // What read() gave of an int8 cache, appended to one sequence bit for bit. Scales are finite and not negative.
  void append(std::int64_t layer, KvSequence sequence, const ScaledRows<const std::int8_t, const float>& k,
              const ScaledRows<const std::int8_t, const float>& v);
  // Moves the end of every layer on by `count` positions that count as given back. Of a sliding cache, once a sequence,
  // whose layers have all the length of the pages that `first` takes; count is whole pages.
  void skip(KvSequence sequence, std::int64_t count);

  struct State;
  const State& state() const;  // throws bad_option where it was moved from

 private:
  std::unique_ptr<State> state_;
};

// attention() of the last queries of each sequence over all that the cache holds of it.
//   q (sequences, heads, q_len, head_dim)   out (sequences, heads, q_len, value_dim)   lse (sequences, heads, q_len)
// or, with options.cu_seqlens_q, batch 1 and the queries of sequence s in [cu_seqlens_q[s], cu_seqlens_q[s + 1]): of
// any numbers, chunks of prompts beside single tokens. The last query of a sequence meets its last position (another
// alignment may be named); with one query each causal is not needed. q and out are of the storage's type; over int8
// they are float, bfloat16 or float16.
//
// A row has the bits that attention() gives it over the same keys and values in one call, whatever the pages, the other
// sequences and the number of threads: docs/cache.md. All options of attention() compose, but for lengths, cu_seqlens_k
// and segments, which the cache decides, and are refused. Over a sliding cache options.window must be given, within its
// own, and no key that a query's window reaches may have been given back. A sequence may be named more than once.
// Allocates nothing after a thread's first calls of a size; scratch is not used.
void attention(View4<const float> q, const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
               View4<float> out, View3<float> lse = {}, const AttentionOptions& options = {});
void attention(View4<const BFloat16> q, const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
               View4<BFloat16> out, View3<float> lse = {}, const AttentionOptions& options = {});
void attention(View4<const Float16> q, const KvCache& cache, std::int64_t layer, std::span<const KvSequence> sequences,
               View4<Float16> out, View3<float> lse = {}, const AttentionOptions& options = {});

}  // namespace multihead
