// SPDX-License-Identifier: Apache-2.0
// KvCache: random operations against a plain model of it, and what one sequence does to another.
#include "multihead/kv_cache.hpp"

#include <gtest/gtest.h>

#include <utility>

#include "kv_cache_model.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

template <class T>
struct StorageOf {
  static constexpr KvStorage kStorage = KvStorage::float32;
};
template <>
struct StorageOf<BFloat16> {
  static constexpr KvStorage kStorage = KvStorage::bfloat16;
};
template <>
struct StorageOf<Float16> {
  static constexpr KvStorage kStorage = KvStorage::float16;
};

// A cache beside its model; T: the type that is appended.
template <class T>
class Pair {
 public:
  Pair(const KvCacheSpec& spec, std::uint64_t seed) : random_(seed), cache_(with_scales(spec)) {}

  KvCache& cache() { return cache_; }
  KvModel& model() { return model_; }
  Random& random() { return random_; }

  void add() {
    const KvSequence name = cache_.add();
    ModelSequence& made = model_.sequences[name];
    made.layers.resize(static_cast<std::size_t>(model_.spec.layers));
  }
  KvSequence pick() {
    auto at = model_.sequences.begin();
    std::advance(at, random_.between(0, static_cast<std::int64_t>(model_.sequences.size()) - 1));
    return at->first;
  }
  void fork() {
    const KvSequence source = pick();
    const ModelSequence& from = model_.sequences.at(source);
    const bool whole = random_.chance(40);
    const std::int64_t length = whole ? from.longest() : random_.between(0, from.longest());
    if (!whole && !model_.may_end(from, length))
      return expect_error("KvCache.fork", kOption, {"were given back"}, [&] { cache_.fork(source, length); });
    const KvSequence name = whole ? cache_.fork(source) : cache_.fork(source, length);
    ModelSequence copy = from;
    if (!whole) model_.cut(copy, length);
    model_.sequences[name] = std::move(copy);
  }
  void truncate() {
    const KvSequence name = pick();
    ModelSequence& sequence = model_.sequences.at(name);
    const std::int64_t most = sequence.longest();
    const std::int64_t length = random_.chance(50) ? random_.between(0, most) : std::max<std::int64_t>(most - 3, 0);
    if (!model_.may_end(sequence, length))
      return expect_error("KvCache.truncate", kOption, {"were given back"}, [&] { cache_.truncate(name, length); });
    cache_.truncate(name, length);
    model_.cut(sequence, length);
  }
  void remove() {
    const KvSequence name = pick();
    cache_.remove(name);
    model_.sequences.erase(name);
    expect_error("KvCache.remove", kOption, {"none of this cache"}, [&] { cache_.remove(name); });
  }
  // Some sequences grow in every layer, or, now and then, in one alone.
  void step() {
    std::vector<KvSequence> names;
    for (const auto& [name, sequence] : model_.sequences)
      if (random_.chance(60)) names.push_back(name);
    const bool ragged = random_.chance(50), alone = random_.chance(10);
    std::vector<std::int64_t> counts(names.size(), random_.chance(50) ? 1 : random_.between(0, 40));
    for (std::int64_t& count : counts)
      if (ragged) count = random_.chance(50) ? 1 : random_.between(0, 40);
    const std::int64_t only = random_.between(0, model_.spec.layers - 1);
    for (std::int64_t layer = 0; layer < model_.spec.layers; ++layer)
      if (!alone || layer == only)
        if (!append(layer, names, counts, ragged)) return;
  }
  void compare() const;
  StoredPosition read(std::int64_t layer, KvSequence name, std::int64_t p) const;

 private:
  const KvCacheSpec& with_scales(const KvCacheSpec& spec) {
    model_.spec = spec;
    if (spec.scales == KvScales::per_token) return model_.spec;
    const std::int64_t heads = spec.layers * spec.kv_heads;
    for (std::int64_t i = 0; i < heads * spec.head_dim; ++i)
      model_.k_scales.push_back(0.01f + 0.002f * static_cast<float>(i % 7));
    for (std::int64_t i = 0; i < heads * model_.value_dim(); ++i)
      model_.v_scales.push_back(0.02f + 0.001f * static_cast<float>(i % 5));
    model_.spec.k_scales = {model_.k_scales.data(), {spec.layers, spec.kv_heads, spec.head_dim}};
    model_.spec.v_scales = {model_.v_scales.data(), {spec.layers, spec.kv_heads, model_.value_dim()}};
    return model_.spec;
  }
  bool append(std::int64_t layer, const std::vector<KvSequence>& names, const std::vector<std::int64_t>& counts,
              bool ragged);

  Random random_;
  KvModel model_;
  KvCache cache_;
};

// Whether there were pages for it.
template <class T>
bool Pair<T>::append(std::int64_t layer, const std::vector<KvSequence>& names, const std::vector<std::int64_t>& counts,
                     bool ragged) {
  const auto batch = static_cast<std::int64_t>(names.size());
  std::vector<std::int64_t> bounds{0};
  for (const std::int64_t count : counts) bounds.push_back(bounds.back() + count);
  const std::int64_t tokens = ragged ? bounds.back() : counts.empty() ? 0 : counts[0], b = ragged ? 1 : batch;
  const bool inside = random_.chance(50);
  Tensor<T> k({b, model_.spec.kv_heads, tokens, model_.spec.head_dim}, inside, random_.between(0, 3));
  Tensor<T> v({b, model_.spec.kv_heads, tokens, model_.value_dim()}, inside, random_.between(0, 3));
  const double scale = random_.pick<double>({0, 1, 1e-30, 1e4});
  k.fill_normal(random_, scale);
  v.fill_normal(random_);
  std::map<KvSequence, std::int64_t> grown;
  for (std::size_t s = 0; s < names.size(); ++s) grown[names[s]] = counts[s];
  KvModel after = model_;
  after.grow(grown, layer);
  const auto door = [&] {
    cache_.append(layer, names, k.view, v.view,
                  ragged ? std::span<const std::int64_t>(bounds) : std::span<const std::int64_t>());
  };
  if (after.free_pages() < 0) {
    expect_error("KvCache.append", ErrorCode::out_of_memory, {"pages are wanted", "are free"}, door);
    return false;
  }
  door();
  model_.sequences = std::move(after.sequences);
  model_.last_page = after.last_page;
  for (std::size_t s = 0; s < names.size(); ++s)
    for (std::int64_t i = 0; i < counts[s]; ++i) {
      StoredPosition position;
      const std::int64_t at = ragged ? 0 : static_cast<std::int64_t>(s), row = ragged ? bounds[s] + i : i;
      for (std::int64_t h = 0; h < model_.spec.kv_heads; ++h) {
        position.k.push_back(
            model_.stored(&k.view(at, h, row, 0), model_.spec.head_dim, model_.scales_of(model_.k_scales, layer, h)));
        position.v.push_back(
            model_.stored(&v.view(at, h, row, 0), model_.value_dim(), model_.scales_of(model_.v_scales, layer, h)));
      }
      model_.sequences.at(names[s]).layers[static_cast<std::size_t>(layer)].push_back(std::move(position));
    }
  return true;
}

// One position as the cache gives it.
template <class T>
StoredPosition read_stored(const KvCache& cache, std::int64_t layer, KvSequence name, std::int64_t p) {
  const KvCacheSpec& spec = cache.spec();
  const std::int64_t heads = spec.kv_heads, v_dim = spec.value_dim.value_or(spec.head_dim);
  std::vector<T> k(static_cast<std::size_t>(heads * spec.head_dim)), v(static_cast<std::size_t>(heads * v_dim));
  Numbers k_scales(static_cast<std::size_t>(heads), 1), v_scales = k_scales;
  const View3<T> k_view(k.data(), {heads, 1, spec.head_dim}), v_view(v.data(), {heads, 1, v_dim});
  if constexpr (std::is_same_v<T, std::int8_t>) {
    const bool by_token = spec.scales == KvScales::per_token;
    const MatrixView<float> k_list(k_scales.data(), {heads, 1}), v_list(v_scales.data(), {heads, 1});
    cache.read(layer, name, p, {k_view, by_token ? k_list : MatrixView<float>()},
               {v_view, by_token ? v_list : MatrixView<float>()});
  } else {
    cache.read(layer, name, p, k_view, v_view);
  }
  StoredPosition position;
  for (std::int64_t h = 0; h < heads; ++h) {
    StoredRow key{{}, k_scales[static_cast<std::size_t>(h)]}, value{{}, v_scales[static_cast<std::size_t>(h)]};
    for (std::int64_t c = 0; c < spec.head_dim; ++c) key.elements.push_back(static_cast<float>(k_view(h, 0, c)));
    for (std::int64_t c = 0; c < v_dim; ++c) value.elements.push_back(static_cast<float>(v_view(h, 0, c)));
    position.k.push_back(std::move(key));
    position.v.push_back(std::move(value));
  }
  return position;
}

// All that int8 says, in one read, beside the stored rows.
void expect_said(const KvCache& cache, const KvModel& model, std::int64_t layer, KvSequence name, std::int64_t p) {
  const StoredPosition& stored =
      model.sequences.at(name).layers[static_cast<std::size_t>(layer)][static_cast<std::size_t>(p)];
  const StoredPosition said = read_stored<float>(cache, layer, name, p);
  for (std::int64_t h = 0; h < model.spec.kv_heads; ++h) {
    const auto at = static_cast<std::size_t>(h);
    EXPECT_EQ(said.k[at].elements, model.said(stored.k[at], model.scales_of(model.k_scales, layer, h)));
    EXPECT_EQ(said.v[at].elements, model.said(stored.v[at], model.scales_of(model.v_scales, layer, h)));
  }
}

template <class T>
StoredPosition Pair<T>::read(std::int64_t layer, KvSequence name, std::int64_t p) const {
  if (model_.spec.storage == KvStorage::int8) return read_stored<std::int8_t>(cache_, layer, name, p);
  return read_stored<T>(cache_, layer, name, p);
}

template <class T>
void Pair<T>::compare() const {
  const bool int8 = model_.spec.storage == KvStorage::int8;
  for (const auto& [found, sequence] : model_.sequences)
    for (std::int64_t layer = 0; layer < model_.spec.layers; ++layer) {
      const KvSequence name = found;
      ASSERT_EQ(cache_.length(name, layer), sequence.length(layer));
      for (std::int64_t p = 0; p < sequence.length(layer); ++p) {
        const bool lost = model_.lost(sequence, p);
        if (lost && (p == 0 || !model_.lost(sequence, p - 1)))
          expect_error("KvCache.read", kOption, {"were given back"}, [&] { read(layer, name, p); });
        if (lost) continue;
        const StoredPosition& wanted = sequence.layers[static_cast<std::size_t>(layer)][static_cast<std::size_t>(p)];
        ASSERT_EQ(read(layer, name, p), wanted) << "layer " << layer << ", position " << p;
        if (int8) expect_said(cache_, model_, layer, name, p);
      }
    }
}

template <class T>
void run_operations(const KvCacheSpec& spec, std::uint64_t seed) {
  Pair<T> pair(spec, seed);
  const int operations = quick_share() ? 50 : 200;
  for (int i = 0; i < operations; ++i) {
    const std::int64_t draw = pair.random().between(0, 99);
    if (pair.model().sequences.empty() || draw < 8)
      pair.add();
    else if (draw < 20)
      pair.fork();
    else if (draw < 32)
      pair.truncate();
    else if (draw < 42)
      pair.remove();
    else
      pair.step();
    ASSERT_EQ(pair.cache().free_pages(), pair.model().free_pages()) << "operation " << i;
    ASSERT_EQ(pair.cache().sequences(), static_cast<std::int64_t>(pair.model().sequences.size()));
    if (i % 25 == 24) pair.compare();
    if (::testing::Test::HasFailure()) return;
  }
}

KvCacheSpec spec_of(KvStorage storage) {
  KvCacheSpec spec;
  spec.storage = storage;
  spec.layers = 2, spec.kv_heads = 2, spec.head_dim = 5, spec.value_dim = 3;
  spec.pages = 14, spec.page_len = 32;
  return spec;
}

template <class T>
class KvCacheOf : public ::testing::Test {};
using Types = ::testing::Types<float, BFloat16, Float16>;
TYPED_TEST_SUITE(KvCacheOf, Types);

TYPED_TEST(KvCacheOf, HoldsWhatAPlainModelHolds) {
  run_operations<TypeParam>(spec_of(StorageOf<TypeParam>::kStorage), 1);
}

TYPED_TEST(KvCacheOf, SlidingHoldsWhatAPlainModelHolds) {
  for (const auto& [window, first] : {std::pair{0, 0}, {20, 3}, {70, 40}}) {
    KvCacheSpec spec = spec_of(StorageOf<TypeParam>::kStorage);
    spec.window = window, spec.first = first;
    run_operations<TypeParam>(spec, static_cast<std::uint64_t>(window));
  }
}

TYPED_TEST(KvCacheOf, Int8HoldsWhatAPlainModelHolds) {
  for (const KvScales scales : {KvScales::per_token, KvScales::per_channel}) {
    KvCacheSpec spec = spec_of(KvStorage::int8);
    spec.scales = scales;
    run_operations<TypeParam>(spec, 7);
    spec.window = 40, spec.first = 1, spec.page_len = 64;
    run_operations<TypeParam>(spec, 8);
  }
}

TEST(KvCache, MovedFromHasNothingAndRefuses) {
  Pair<float> pair(spec_of(KvStorage::float32), 3);
  pair.add();
  const KvSequence name = pair.pick();
  KvCache moved = std::move(pair.cache());
  EXPECT_EQ(moved.length(name), 0);
  KvCache& empty = pair.cache();  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(empty.sequences(), 0);
  EXPECT_EQ(empty.free_pages(), 0);
  EXPECT_EQ(empty.spec().pages, 0);
  expect_error("KvCache.add", kOption, {"was moved from"}, [&] { empty.add(); });
  expect_error("KvCache.length", kOption, {"was moved from"}, [&] { empty.length(name); });
  empty = std::move(moved);
  EXPECT_EQ(empty.length(name), 0);
}

TEST(KvCache, NamesAreNeverGivenTwice) {
  Pair<float> one(spec_of(KvStorage::float32), 4), other(spec_of(KvStorage::float32), 5);
  std::set<KvSequence> names;
  for (int i = 0; i < 20; ++i) {
    KvCache& cache = i % 2 ? one.cache() : other.cache();
    const KvSequence name = cache.add();
    EXPECT_NE(static_cast<std::uint64_t>(name), 0u);
    EXPECT_TRUE(names.insert(name).second);
    KvCache& foreign = i % 2 ? other.cache() : one.cache();
    expect_error("KvCache.fork", kOption, {"none of this cache"}, [&] { foreign.fork(name); });
    if (i % 3 == 0) cache.remove(name);
  }
}

// One call gives a page back for one sequence and writes into it for the other, which then holds it alone.
TEST(KvCache, APageThatTheOtherGivesBackIsNotCopied) {
  KvCacheSpec spec = spec_of(KvStorage::float32);
  spec.layers = 1, spec.pages = 3, spec.window = 0;
  KvCache cache(spec);
  Tensor<float> k({1, 2, 40, 5}), v({1, 2, 40, 3});
  Random random(6);
  k.fill_normal(random);
  v.fill_normal(random);
  const auto append = [&](std::vector<KvSequence> names, std::int64_t tokens) {
    const auto batch = static_cast<std::int64_t>(names.size());
    const std::array<std::int64_t, 4> same{0, k.view.stride(1), k.view.stride(2), 1},
        values{0, v.view.stride(1), v.view.stride(2), 1};
    cache.append(0, names, View4<const float>(k.values.data(), {batch, 2, tokens, 5}, same),
                 View4<const float>(v.values.data(), {batch, 2, tokens, 3}, values));
  };
  const KvSequence longer = cache.add(), other = cache.add();
  append({longer}, 40);
  const KvSequence shorter = cache.fork(longer, 20);
  append({other}, 1);
  ASSERT_EQ(cache.free_pages(), 0);
  append({longer, shorter}, 1);
  EXPECT_EQ(cache.free_pages(), 0);
  EXPECT_EQ(cache.given_back(longer).end, 32);
  EXPECT_EQ(read_stored<float>(cache, 0, shorter, 20), read_stored<float>(cache, 0, other, 0));
  expect_error("KvCache.append", ErrorCode::out_of_memory, {"1 pages are wanted, 0 are free"},
               [&] { append({shorter}, 20); });
}

TEST(KvCache, CutBeforeWhatWasGivenBackNothingIsMissing) {
  KvCacheSpec spec = spec_of(KvStorage::float32);
  spec.layers = 1, spec.window = 10, spec.first = 40;
  KvCache cache(spec);
  const KvSequence name = cache.add();
  Tensor<float> k({1, 2, 50, 5}), v({1, 2, 50, 3});
  for (int step = 0; step < 5; ++step) cache.append(0, {&name, 1}, k.view, v.view);
  ASSERT_EQ(cache.given_back(name).begin, 64);
  ASSERT_EQ(cache.given_back(name).end, 160);
  expect_error("KvCache.truncate", kOption, {"at most 64", "at least 170"}, [&] { cache.truncate(name, 169); });
  const KvSequence fork = cache.fork(name, 170);
  cache.truncate(name, 64);
  EXPECT_EQ(cache.given_back(name).end, 0);
  EXPECT_EQ(cache.given_back(fork).end, 160);
  cache.append(0, {&name, 1}, k.view, v.view);
  EXPECT_EQ(read_stored<float>(cache, 0, name, 100), read_stored<float>(cache, 0, name, 20));
  cache.truncate(name, 90);
  EXPECT_EQ(cache.length(name), 90);
}

TEST(KvCache, AZeroKeyHasScaleZero) {
  KvCacheSpec spec = spec_of(KvStorage::int8);
  KvCache cache(spec);
  const KvSequence name = cache.add();
  Tensor<float> k({1, 2, 1, 5}), v({1, 2, 1, 3});
  k.each([](float& x) { x = 0; });
  v.each([](float& x) { x = 1e-44f; });  // its scale is below the smallest number
  cache.append(0, {&name, 1}, k.view, v.view);
  const StoredPosition stored = read_stored<std::int8_t>(cache, 0, name, 0);
  for (const StoredRow& row : stored.k) EXPECT_EQ(row, (StoredRow{Numbers(5, 0), 0}));
  for (const StoredRow& row : stored.v) EXPECT_EQ(row, (StoredRow{Numbers(3, 0), 0}));
}

}  // namespace
}  // namespace multihead::testing
