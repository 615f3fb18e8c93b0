// SPDX-License-Identifier: Apache-2.0
// write_page(): what it refuses, how text is escaped, what numbers become, how large a page gets.
#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <sstream>

#include "inspect/page.hpp"
#include "problem.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

constexpr std::int64_t kLayers = 2, kHeads = 3, kRows = 5, kKeys = 5;

struct Call {
  std::vector<HeadStatsSpec> specs = std::vector<HeadStatsSpec>(kLayers);
  std::vector<std::string> q_tokens = std::vector<std::string>(kRows, "a"), kv_tokens;
  std::vector<float> values = std::vector<float>(kLayers * kHeads * kRows * kKeys, 0.2f);
  std::vector<View3<const float>> weights;
  std::vector<MatrixView<const float>> norms;
  std::vector<std::uint8_t> q_special, kv_special;
  bool null = false, compressed = false;
  std::string title = "title";

  Call() {
    for (HeadStatsSpec& spec : specs) spec.heads = kHeads, spec.q_len = kRows, spec.kv_len = kKeys, spec.bin = 16;
    for (std::int64_t layer = 0; layer < kLayers; ++layer)
      weights.emplace_back(values.data() + layer * kHeads * kRows * kKeys,
                           View3<const float>::Extents{kHeads, kRows, kKeys});
  }
  Call(const Call& other) : Call() {  // views look at values of their own
    *this = other;
  }
  Call& operator=(const Call& other) {
    specs = other.specs, q_tokens = other.q_tokens, kv_tokens = other.kv_tokens, values = other.values;
    return *this;
  }

  std::string page(std::ostream* to = nullptr) const {
    std::vector<HeadStats> stats(specs.begin(), specs.end());
    std::vector<const HeadStats*> layers;
    for (const HeadStats& one : stats) layers.push_back(null ? nullptr : &one);
    std::ostringstream out;
    const Compress compress = [](std::span<const std::byte> bytes) { return "<" + std::to_string(bytes.size()) + ">"; };
    write_page(to ? *to : out, {title, q_tokens, kv_tokens, layers, weights, norms, q_special, kv_special},
               compressed ? compress : Compress());
    return out.str();
  }
};

void expect_page_refused(ErrorCode code, const Words& words, const std::function<void(Call&)>& change) {
  Call call;
  EXPECT_NO_THROW(call.page());
  change(call);
  std::ostringstream out;
  expect_error("write_page", code, words, [&] { call.page(&out); });
  EXPECT_EQ(out.str(), "");
}

TEST(PageWriter, RefusesWhatDoesNotFit) {
  constexpr ErrorCode kShape = ErrorCode::shape_mismatch, kOption = ErrorCode::bad_option;
  expect_page_refused(kOption, {"layers is empty"}, [](Call& c) { c.specs.clear(); });
  expect_page_refused(kOption, {"layers[0] is null"}, [](Call& c) { c.null = true; });
  expect_page_refused(kOption, {"layers[1] has batch", "2"}, [](Call& c) { c.specs[1].batch = 2; });
  expect_page_refused(kOption, {"layers[0] has heads", "0"}, [](Call& c) { c.specs[0].heads = 0; });
  expect_page_refused(kShape, {"layers[1] has heads 4", "layers[0] has 3"}, [](Call& c) { c.specs[1].heads = 4; });
  expect_page_refused(kShape, {"layers[1] has kv_len 6", "layers[0] has 5"}, [](Call& c) { c.specs[1].kv_len = 6; });
  expect_page_refused(kShape, {"layers[1] has bin 32", "layers[0] has 16"}, [](Call& c) { c.specs[1].bin = 32; });
  expect_page_refused(kShape, {"layers[1] has top 2", "layers[0] has 1"}, [](Call& c) { c.specs[1].top = 2; });
  expect_page_refused(kShape, {"layers[1] has other offsets"}, [](Call& c) { c.specs[1].offsets = {1}; });
  expect_page_refused(kShape, {"layers[1] has other keys"}, [](Call& c) { c.specs[1].keys = {}; });
  expect_page_refused(kShape, {"layers[1] has other requests"}, [](Call& c) { c.specs[1].received = true; });
  expect_page_refused(kShape, {"q_tokens has 4", "q_len is 5"}, [](Call& c) { c.q_tokens.pop_back(); });
  expect_page_refused(kShape, {"kv_tokens has 2", "kv_len is 5"}, [](Call& c) { c.kv_tokens = {"a", "b"}; });
  expect_page_refused(kShape, {"kv_tokens is empty", "kv_len is 6", "q_len is 5"}, [](Call& c) {
    for (HeadStatsSpec& spec : c.specs) spec.kv_len = 6;
  });
  expect_page_refused(kShape, {"weights has layers 1", "layers has 2"}, [](Call& c) { c.weights.pop_back(); });
  expect_page_refused(kShape, {"weights[1] has kv_len 4", "layers[0] has 5"}, [](Call& c) {
    c.weights[1] = {c.values.data(), {kHeads, kRows, 4}};
  });
  expect_page_refused(kShape, {"weights[0] is null"}, [](Call& c) {
    c.weights[0] = {nullptr, {kHeads, kRows, kKeys}};
  });
  expect_page_refused(kOption, {"weights is empty", "bin 0"}, [](Call& c) {
    c.weights.clear();
    for (HeadStatsSpec& spec : c.specs) spec.bin = 0;
  });
  expect_page_refused(kOption, {"weights[1]", "1.5", "(0, 0, 2)", "at most 1"}, [](Call& c) { c.values[77] = 1.5f; });
  expect_page_refused(kOption, {"weights[0]", "-0.5", "(2, 4, 4)", "at least 0"},
                      [](Call& c) { c.values[74] = -0.5f; });
}

TEST(PageWriter, RefusesNormsAndSpecialTokensThatDoNotFit) {
  constexpr ErrorCode kShape = ErrorCode::shape_mismatch, kOption = ErrorCode::bad_option;
  expect_page_refused(kOption, {"norms is given and weights is empty"}, [](Call& c) {
    c.weights.clear();
    c.norms.assign(2, {c.values.data(), {kHeads, kKeys}});
  });
  expect_page_refused(kShape, {"norms has layers 1", "layers has 2"}, [](Call& c) {
    c.norms.assign(1, {c.values.data(), {kHeads, kKeys}});
  });
  expect_page_refused(kShape, {"norms[0] has kv_len 4", "layers[0] has 5"}, [](Call& c) {
    c.norms.assign(2, {c.values.data(), {kHeads, 4}});
  });
  expect_page_refused(kShape, {"q_special has 4", "q_len is 5"}, [](Call& c) { c.q_special = {1, 0, 0, 1}; });
  expect_page_refused(kOption, {"kv_special is given and kv_tokens is empty"},
                      [](Call& c) { c.kv_special.assign(kKeys, 0); });
  expect_page_refused(kShape, {"kv_special has 1", "kv_len is 5"}, [](Call& c) {
    c.kv_tokens = c.q_tokens;
    c.kv_special = {1};
  });
  static const std::vector<float> kNorms = [] {
    std::vector<float> norms(kHeads * kKeys, 1);
    norms[8] = INFINITY, norms[1] = -2;
    return norms;
  }();
  expect_page_refused(kOption, {"norms[1]", "inf", "(0, 3)", "finite"}, [](Call& c) {
    c.norms = {{kNorms.data() + 10, {1, kKeys}}, {kNorms.data() + 5, {1, kKeys}}};
    for (HeadStatsSpec& spec : c.specs) spec.heads = 1;
    for (View3<const float>& one : c.weights) one = {c.values.data(), {1, kRows, kKeys}};
  });
  expect_page_refused(kOption, {"norms[0]", "-2", "(0, 1)", "at least 0"}, [](Call& c) {
    c.norms.assign(2, {kNorms.data(), {kHeads, kKeys}});
  });
}

TEST(PageWriter, ShowsAtMost512TokensInFull) {
  const std::int64_t tokens = 513;
  Call call;
  call.q_tokens.assign(static_cast<std::size_t>(tokens), "a");
  for (HeadStatsSpec& spec : call.specs) spec.heads = 1, spec.q_len = tokens, spec.kv_len = tokens;
  call.values.assign(static_cast<std::size_t>(tokens * tokens), 0);
  call.weights.assign(2, {call.values.data(), {1, tokens, tokens}});
  expect_error("write_page", ErrorCode::bad_option, {"weights[0] has q_len", "513", "512"}, [&] { call.page(); });
  call.weights.clear();
  EXPECT_NO_THROW(call.page());
}

TEST(PageWriter, SaysThatAFileCannotBeWritten) {
  std::ostringstream out;
  out.setstate(std::ios::badbit);
  expect_error("write_page", ErrorCode::file_missing, {"out cannot be written"}, [&] { Call().page(&out); });
}

TEST(PageWriter, EscapesHostileText) {
  EXPECT_EQ(json_string("</script>"), R"("\u003c/script\u003e")");
  EXPECT_EQ(json_string("\"\\\n&\x7f"), R"("\"\\\u000a\u0026\u007f")");
  EXPECT_EQ(json_string(std::string_view("\0a", 2)), R"("\u0000a")");
  EXPECT_EQ(json_string("\xE2\x80\xA8\xE2\x80\xA9\xE2\x80\xAA"), "\"\\u2028\\u2029\xE2\x80\xAA\"");
  EXPECT_EQ(html_text("<b>&\n\"'"), "&lt;b&gt;&amp; \"'");
  const std::string kBad = "\xEF\xBF\xBD";  // U+FFFD
  for (const auto& [bytes, wanted] : {std::pair<std::string, std::string>{"\xff", kBad},
                                      {"\xc3(", kBad + "("},
                                      {"\xc0\x80", kBad + kBad},             // overlong
                                      {"\xed\xa0\x80", kBad + kBad + kBad},  // a surrogate
                                      {"\xf4\x90\x80\x80", kBad + kBad + kBad + kBad},
                                      {"\xe2\x80", kBad + kBad},
                                      {"\xc3\xa9\xf0\x9f\x98\x80", "\xc3\xa9\xf0\x9f\x98\x80"}})
    EXPECT_EQ(html_text(bytes), wanted) << wanted;

  Call call;
  const auto count = [](const std::string& page, std::string_view what) {
    std::size_t found = 0;
    for (std::size_t at = 0; (at = page.find(what, at)) != std::string::npos; ++at) ++found;
    return found;
  };
  const std::string before = call.page();
  call.title = "</title><script>1</script><!--data--><!--title-->";
  call.q_tokens.assign(kRows, "</script><script>1</script><!--\xE2\x80\xA8");
  call.specs[0].classes = call.specs[1].classes = {"<script>"};
  for (HeadStatsSpec& spec : call.specs) spec.key_classes.assign(kKeys, 1);
  const std::string after = call.page();
  for (const char* what : {"<script", "</script", "<!--", "<title", "\xE2\x80\xA8", "<meta"})
    EXPECT_EQ(count(after, what), count(before, what)) << what;
}

// The bytes of a block.
std::vector<unsigned> block(const std::string& page, const std::string& id) {
  const std::string begins = "id=\"" + id + "\">";
  const std::size_t first = page.find(begins) + begins.size();
  const std::string text = page.substr(first, page.find("</script>", first) - first);
  const std::string letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  std::vector<unsigned> bytes;
  for (std::size_t at = 0; at < text.size(); at += 4) {
    unsigned three = 0;
    for (std::size_t i = 0; i < 4; ++i) three = three << 6 | static_cast<unsigned>(letters.find(text[at + i]) & 63);
    for (const int shift : {16, 8, 0}) bytes.push_back(three >> shift & 255);
  }
  for (std::size_t end = text.size(); end > 0 && text[end - 1] == '='; --end) bytes.pop_back();
  return bytes;
}
// Number at of a section of count that begins at start.
unsigned high_first(const std::vector<unsigned>& bytes, std::size_t start, std::size_t count, std::size_t at) {
  return bytes.at(start + at) << 8 | bytes.at(start + count + at);
}

TEST(PageWriter, KeepsWeightsToSixteenBitsOfTheirRoots) {
  Call call;
  Random random(3);
  for (float& value : call.values) value = static_cast<float>(std::pow(random.uniform(), 8));
  call.values[0] = 1, call.values[1] = 0, call.values[2] = NAN;
  call.norms.assign(2, {call.values.data(), {kHeads, kKeys}});
  call.q_special = {1, 0, 0, 0, 1};
  const std::string page = call.page();
  EXPECT_NE(page.find("\"q_special\":[1,0,0,0,1],\"kv_special\":null"), std::string::npos);
  constexpr std::size_t kCells = kRows * kKeys;
  for (std::size_t place = 0; place < kLayers * kHeads; ++place) {
    const std::string id = std::to_string(place / kHeads) + "." + std::to_string(place % kHeads);
    const std::vector<unsigned> plain = block(page, "p" + id), norm = block(page, "n" + id);
    ASSERT_EQ(plain.size(), 2 * kCells);
    ASSERT_EQ(norm.size(), 4 * kKeys);
    for (std::size_t key = 0; key < kKeys; ++key) {  // a little-endian float32 each
      std::uint32_t bits = 0;
      for (std::size_t byte = 4; byte-- > 0;) bits = bits << 8 | norm[4 * key + byte];
      EXPECT_EQ(bits, std::bit_cast<std::uint32_t>(call.values[place % kHeads * kKeys + key]));
    }
    for (std::size_t cell = 0; cell < kCells; ++cell) {
      const float* const values = call.values.data() + place * kCells;
      const unsigned q = high_first(plain, 0, kCells, cell);
      if (std::isnan(values[cell]))
        EXPECT_EQ(q, 65535u);
      else
        EXPECT_NEAR(std::pow(q / 65534.0, 2), values[cell], 1.6e-5);
    }
  }
}

TEST(PageWriter, CompressesEachBlockByTheCallersFunction) {
  Call call;
  call.compressed = true;
  const std::string page = call.page();
  EXPECT_NE(page.find("\"compressed\":true"), std::string::npos);
  const std::vector<unsigned> bytes = block(page, "p1.2");
  EXPECT_EQ(std::string(bytes.begin(), bytes.end()), "<50>");  // what the function made of 5 x 5 numbers
}

// One head that looks at the key before and, less, at the first.
HeadStats looking_back(std::int64_t heads, std::int64_t tokens, std::int64_t top, std::int64_t bin) {
  HeadStatsSpec spec;
  spec.heads = heads, spec.q_len = spec.kv_len = tokens, spec.offsets = {-1}, spec.keys = {0};
  spec.top = top, spec.bin = bin, spec.received = true;
  HeadStats stats(spec);
  const RowStatistics<float> to = stats.request().plain;
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < tokens; ++i) {
      to.visible(0, h, i) = static_cast<float>(i + 1);
      to.entropy(0, h, i) = 0.5f + static_cast<float>(i % 7);
      to.received(0, h, i) = static_cast<float>(i % 5);
      for (std::int64_t k = 0; k < top; ++k) {
        to.top_keys(0, h, i, k) = i - 1 - k < 0 ? -1 : i - 1 - k;
        to.top_weights(0, h, i, k) = i - 1 - k < 0 ? 0 : 0.75f / static_cast<float>(1 << k);
      }
    }
  for (std::int64_t h = 0; h < heads; ++h)
    for (std::int64_t i = 0; i < to.map.extent(2); ++i) to.map(0, h, i, i) = 0.5f, to.map(0, h, i, 0) += 0.25f;
  return stats;
}

std::string page_of(const HeadStats& stats) {
  const std::vector<std::string> tokens(static_cast<std::size_t>(stats.spec().q_len), "##token");
  const HeadStats* layers[] = {&stats};
  std::ostringstream out;
  write_page(out, {"long", tokens, {}, layers});
  return std::move(out).str();
}

TEST(PageWriter, KeepsMapsAndTopKeysOfALongText) {
  constexpr std::size_t kTokens = 16 * 300 - 4, kTop = 3, kSide = 150;  // 300 bins: two to one of the page's
  const HeadStats stats = looking_back(2, kTokens, kTop, 16);
  const std::vector<unsigned> bytes = block(page_of(stats), "p0.1");
  ASSERT_EQ(bytes.size(), 8 + 2 * kTokens + 2 * kTokens + 2 * kSide * kSide + 4 * kTop * kTokens);
  std::size_t at = 8;
  EXPECT_NEAR(high_first(bytes, at, kTokens, 12) / 65534.0 * 6.5, 5.5, 1e-4);  // entropy, most 6.5
  at += 2 * kTokens;
  EXPECT_NEAR(std::pow(high_first(bytes, at, kTokens, 8) / 65534.0, 2) * 4, 3, 1e-4);  // received, most 4
  at += 2 * kTokens;
  const auto map = [&](std::size_t i, std::size_t j) {
    return std::pow(high_first(bytes, at, kSide * kSide, i * kSide + j) / 65534.0, 2);
  };
  EXPECT_NEAR(map(0, 0), (0.75 + 0.75) / 2, 2e-5);  // a mean over rows of a sum over keys
  EXPECT_NEAR(map(149, 149), 0.5, 2e-5);
  EXPECT_NEAR(map(149, 0), 0.25, 2e-5);
  EXPECT_EQ(map(3, 4), 0);
  at += 2 * kSide * kSide;
  EXPECT_EQ(high_first(bytes, at, kTop * kTokens, 0), 65535u);  // no key
  EXPECT_EQ(high_first(bytes, at, kTop * kTokens, 3000 * kTop + 2), 2997u);
  at += 2 * kTop * kTokens;
  EXPECT_NEAR(std::pow(high_first(bytes, at, kTop * kTokens, 3000 * kTop + 1) / 65534.0, 2), 0.375, 2e-5);
}

TEST(PageWriter, ThirtyTwoThousandTokensStayBelow25Megabytes) {
  constexpr std::int64_t kTokens = 32768;
  const std::int64_t heads = quick_share() ? 2 : 32;  // fewer heads keep more keys a row
  const HeadStats stats = looking_back(heads, kTokens, 4, 128);
  const std::string page = page_of(stats);
  const std::int64_t top = quick_share() ? 4 : 2;
  const std::int64_t head = 8 + kTokens * (2 + 2 + 4 * top) + 2 * 256 * 256;
  EXPECT_EQ(block(page, "p0.1").size(), static_cast<std::size_t>(head));
  EXPECT_LT(page.size(), 25'000'000u);
  const std::size_t rest = 10 * kTokens + 2 * 60'000;  // tokens with quotes and comma; template and all else
  EXPECT_LT(page.size(), static_cast<std::size_t>(heads * (head + 2) / 3 * 4) + rest);
  std::cout << "bytes of a page of 32,768 tokens x " << heads << " heads: " << page.size() << '\n';
}

TEST(PageWriter, KeysBeyond65535TakeFourBytes) {
  const HeadStats stats = looking_back(1, 70000, 1, 512);
  const std::vector<unsigned> bytes = block(page_of(stats), "p0.0");
  constexpr std::size_t kTokens = 70000, kSide = 137;
  ASSERT_EQ(bytes.size(), 8 + 2 * kTokens + 2 * kTokens + 2 * kSide * kSide + 6 * kTokens);
  const std::size_t at = 8 + 4 * kTokens + 2 * kSide * kSide + 69999;
  EXPECT_EQ(bytes[at] << 24 | bytes[at + kTokens] << 16 | bytes[at + 2 * kTokens] << 8 | bytes[at + 3 * kTokens],
            69998u);
}

}  // namespace
}  // namespace multihead::testing
