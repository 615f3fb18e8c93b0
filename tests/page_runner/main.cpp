// SPDX-License-Identifier: Apache-2.0
// Writes pages for page_test.py.
//
//   page_runner FOLDER OUT [BIN]   from FOLDER/weights.npy (layers, heads, q_len, kv_len), q_tokens.txt and, where
//   there,
//                                  kv_tokens.txt (a token a line, in hexadecimal digits), norms.npy (layers, heads,
//                                  kv_len), title.txt and special.txt (a digit 0 or 1 a token); with BIN as a long
//                                  text, with maps of BIN tokens
//   page_runner LENGTH OUT         a long text of made-up tokens and weights, bins of 16
// OUT that ends in .z.html is compressed, as far as zlib's format allows without doing it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <map>
#include <optional>
#include <sstream>

#include "multihead/inspect.hpp"
#include "multihead/io.hpp"

namespace multihead {
namespace {

struct Case {
  std::string title;
  std::vector<std::string> q_tokens, kv_tokens;
  std::vector<std::int64_t> shape;  // layers, heads, q_len, kv_len
  std::vector<float> weights, norms;
  std::int64_t bin = 0;
  std::vector<std::uint8_t> special;  // of q_tokens; empty: not known
};

std::string read(const std::filesystem::path& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

std::vector<std::string> read_tokens(const std::filesystem::path& path) {
  std::istringstream lines(read(path));
  std::vector<std::string> tokens;
  for (std::string line; std::getline(lines, line);) {
    tokens.emplace_back();
    for (std::size_t at = 0; at + 1 < line.size(); at += 2)
      tokens.back() += static_cast<char>(std::stoi(line.substr(at, 2), nullptr, 16));
  }
  return tokens;
}

Case read_case(const std::filesystem::path& folder, std::int64_t bin) {
  const Array weights = read_npy(folder / "weights.npy");
  const auto values = weights.values<float>();
  Case c{read(folder / "title.txt"),
         read_tokens(folder / "q_tokens.txt"),
         read_tokens(folder / "kv_tokens.txt"),
         weights.shape,
         {values.begin(), values.end()},
         {},
         bin,
         {}};
  for (const char digit : read(folder / "special.txt")) c.special.push_back(digit == '1');
  if (std::filesystem::exists(folder / "norms.npy")) {
    const Array norms = read_npy(folder / "norms.npy");
    const auto lengths = norms.values<float>();
    c.norms.assign(lengths.begin(), lengths.end());
  }
  return c;
}

// Head 0 looks at the first key and the one before, the others ever farther back.
Case made_up(std::int64_t length) {
  Case c{"A long text", {}, {}, {2, 4, length, length}, {}, {}, 16, {}};
  const char* const words[] = {"the", "wind", "##y", "road", "turn", "##s", ",", "a", "bird", "call"};
  for (std::int64_t i = 0; i < length; ++i) c.q_tokens.emplace_back(words[i * i % 97 % 10]);
  c.q_tokens.front() = "[CLS]", c.q_tokens.back() = "[SEP]";
  c.weights.resize(static_cast<std::size_t>(8 * length * length));
  for (std::int64_t row = 0; row < 8 * length; ++row) {
    const std::int64_t i = row % length, reach = row / length * 7 + 1;
    float* const weights = c.weights.data() + row * length;
    double sum = 0;
    for (std::int64_t j = 0; j <= i; ++j) {
      const double away = std::abs(static_cast<double>(i - j - reach + 1)) / static_cast<double>(reach);
      weights[j] =
          static_cast<float>(std::exp(-away) + (j == 0 ? 0.7 : 0) + 0.001 * static_cast<double>((i * 31 + j * 17) % 5));
      sum += static_cast<double>(weights[j]);
    }
    for (std::int64_t j = 0; j <= i; ++j) weights[j] = static_cast<float>(weights[j] / sum);
  }
  return c;
}

HeadStatsSpec spec_of(const Case& c) {
  HeadStatsSpec spec;
  spec.heads = c.shape[1], spec.q_len = c.shape[2], spec.kv_len = c.shape[3];
  spec.top = 8, spec.bin = c.bin, spec.received = true, spec.norm_weighted = !c.norms.empty();
  spec.classes = {"separator"};
  std::map<std::string, std::int64_t> ids;
  const auto id = [&](const std::string& token) { return ids.emplace(token, ids.size()).first->second; };
  for (const std::string& token : c.q_tokens) spec.q_tokens.push_back(id(token));
  for (const std::string& token : c.kv_tokens.empty() ? c.q_tokens : c.kv_tokens) {
    spec.kv_tokens.push_back(id(token));
    spec.key_classes.push_back(token == "[SEP]");
  }
  return spec;
}

// Stored blocks between a header and Adler's sum (RFC 1950, 1951).
std::string stored(std::span<const std::byte> bytes) {
  std::string out = "\x78\x01";
  std::uint32_t low = 1, high = 0;
  for (const std::byte byte : bytes)
    low = (low + std::to_integer<std::uint32_t>(byte)) % 65521, high = (high + low) % 65521;
  for (std::size_t at = 0; at == 0 || at < bytes.size(); at += 65535) {
    const std::size_t size = std::min<std::size_t>(bytes.size() - at, 65535);
    for (const std::size_t value : {size, ~size}) (out += static_cast<char>(value)) += static_cast<char>(value >> 8);
    out.insert(out.size() - 4, 1, static_cast<char>(at + size == bytes.size()));
    out.append(reinterpret_cast<const char*>(bytes.data()) + at, size);
  }
  for (const std::uint32_t half : {high, low}) (out += static_cast<char>(half >> 8)) += static_cast<char>(half);
  return out;
}

void write(const Case& c, const std::filesystem::path& to) {
  const std::int64_t layers = c.shape[0], heads = c.shape[1], q_len = c.shape[2], kv_len = c.shape[3];
  std::vector<HeadStats> stats;
  std::vector<View3<const float>> weights;
  std::vector<MatrixView<const float>> norms;
  for (std::int64_t layer = 0; layer < layers; ++layer) {
    const float* const first = c.weights.data() + layer * heads * q_len * kv_len;
    stats.emplace_back(spec_of(c));
    StatisticsRequest<float> request = stats.back().request();
    if (!c.norms.empty()) {
      request.norms = {c.norms.data() + layer * heads * kv_len, {1, heads, kv_len}};
      norms.push_back({request.norms.data(), {heads, kv_len}});
    }
    statistics_of_weights(View4<const float>(first, {1, heads, q_len, kv_len}), request);
    weights.emplace_back(first, View3<const float>::Extents{heads, q_len, kv_len});
  }
  Page page{c.title, c.q_tokens, c.kv_tokens, {}};
  std::vector<const HeadStats*> all;
  for (const HeadStats& one : stats) all.push_back(&one);
  page.layers = all;
  if (c.bin == 0) page.weights = weights;
  if (c.bin == 0 && !c.norms.empty()) page.norms = norms;
  page.q_special = c.special;
  std::ofstream out(to, std::ios::binary);
  write_page(out, page, to.stem().extension() == ".z" ? Compress(stored) : Compress());
}

}  // namespace
}  // namespace multihead

int main(int argc, char** argv) {
  if (argc < 3) {
    std::fprintf(stderr, "page_runner FOLDER OUT [BIN] | LENGTH OUT\n");
    return 2;
  }
  try {
    const std::int64_t length = std::atoll(argv[1]);
    multihead::write(
        length > 0 ? multihead::made_up(length) : multihead::read_case(argv[1], argc > 3 ? std::atoll(argv[3]) : 0),
        argv[2]);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  return 0;
}
