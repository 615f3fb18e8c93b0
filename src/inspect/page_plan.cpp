// SPDX-License-Identifier: Apache-2.0
// What a page is asked to show, checked; and how much of it fits.
#include <algorithm>
#include <initializer_list>
#include <limits>
#include <tuple>

#include "core/validate.hpp"
#include "inspect/page.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "write_page";
constexpr std::int64_t kFullTokens = 512, kMapSide = 256;
constexpr std::int64_t kPageBytes = 24'000'000;  // of the heads' data as base64, uncompressed

std::string indexed(const char* name, std::size_t at) { return std::string(name) + "[" + std::to_string(at) + "]"; }

void check_same(std::size_t layer, const char* what, bool same) {
  if (!same)
    fail(ErrorCode::shape_mismatch, std::string(kName) + ": " + indexed("layers", layer) + " has other " + what +
                                        " than layers[0]; they must be equal");
}

void check_layers(const Page& page) {
  if (page.layers.empty()) fail(ErrorCode::bad_option, "write_page: layers is empty; at least one is needed");
  for (std::size_t layer = 0; layer < page.layers.size(); ++layer) {
    const std::string name = indexed("layers", layer);
    if (!page.layers[layer]) fail(ErrorCode::bad_option, "write_page: " + name + " is null; it must be there");
    const HeadStatsSpec &spec = page.layers[layer]->spec(), &first = page.layers[0]->spec();
    check_between(kName, name + " has batch", spec.batch, 1, 1);
    for (const auto& [property, extent, wanted] : {std::tuple{"has heads", spec.heads, first.heads},
                                                   {"has q_len", spec.q_len, first.q_len},
                                                   {"has kv_len", spec.kv_len, first.kv_len},
                                                   {"has top", spec.top, first.top},
                                                   {"has bin", spec.bin, first.bin}}) {
      check_between(kName, name + " " + property, extent, property == std::string_view("has bin") ? 0 : 1,
                    std::int64_t{1} << 31);
      check_equal(kName, name, property, extent, "layers[0] has", wanted);
    }
    check_same(layer, "offsets", spec.offsets == first.offsets);
    check_same(layer, "keys", spec.keys == first.keys);
    check_same(layer, "classes", spec.classes == first.classes);
    check_same(layer, "requests for received, tokens or norms",
               spec.received == first.received && spec.q_tokens.empty() == first.q_tokens.empty() &&
                   spec.norm_weighted == first.norm_weighted);
  }
}

void check_tokens(const Page& page, const HeadStatsSpec& spec) {
  check_equal(kName, "q_tokens", "has", static_cast<std::int64_t>(page.q_tokens.size()), "q_len is", spec.q_len);
  if (page.kv_tokens.empty())
    check_equal(kName, "kv_tokens", "is empty, so kv_len is", spec.kv_len, "q_len is", spec.q_len);
  else
    check_equal(kName, "kv_tokens", "has", static_cast<std::int64_t>(page.kv_tokens.size()), "kv_len is", spec.kv_len);
}

void check_weights(const Page& page, const HeadStatsSpec& spec) {
  const auto weights = page.weights;
  check_equal(kName, "weights", "has layers", static_cast<std::int64_t>(weights.size()), "layers has",
              static_cast<std::int64_t>(page.layers.size()));
  for (std::size_t layer = 0; layer < weights.size(); ++layer) {
    const std::string one = indexed("weights", layer);
    check_view(kName, operand(one.c_str(), weights[layer]));
    check_equal(kName, one, "has heads", weights[layer].extent(0), "layers[0] has", spec.heads);
    check_equal(kName, one, "has q_len", weights[layer].extent(1), "layers[0] has", spec.q_len);
    check_equal(kName, one, "has kv_len", weights[layer].extent(2), "layers[0] has", spec.kv_len);
    check_between(kName, one + " has q_len", spec.q_len, 1, kFullTokens);
    check_between(kName, one + " has kv_len", spec.kv_len, 1, kFullTokens);
  }
}

void check_norms(const Page& page, const HeadStatsSpec& spec) {
  if (page.norms.empty()) return;
  if (page.weights.empty())
    fail(ErrorCode::bad_option, "write_page: norms is given and weights is empty; they must come together");
  check_equal(kName, "norms", "has layers", static_cast<std::int64_t>(page.norms.size()), "layers has",
              static_cast<std::int64_t>(page.layers.size()));
  for (std::size_t layer = 0; layer < page.norms.size(); ++layer) {
    const std::string one = indexed("norms", layer);
    check_view(kName, operand(one.c_str(), page.norms[layer]));
    check_equal(kName, one, "has heads", page.norms[layer].extent(0), "layers[0] has", spec.heads);
    check_equal(kName, one, "has kv_len", page.norms[layer].extent(1), "layers[0] has", spec.kv_len);
  }
}

void check_special(const Page& page, const HeadStatsSpec& spec) {
  if (!page.q_special.empty())
    check_equal(kName, "q_special", "has", static_cast<std::int64_t>(page.q_special.size()), "q_len is", spec.q_len);
  if (page.kv_special.empty()) return;
  if (page.kv_tokens.empty())
    fail(ErrorCode::bad_option, "write_page: kv_special is given and kv_tokens is empty; they must come together");
  check_equal(kName, "kv_special", "has", static_cast<std::int64_t>(page.kv_special.size()), "kv_len is", spec.kv_len);
}

// NaN is shown as what it is.
void check_value(const char* name, std::size_t layer, float value, float most,
                 std::initializer_list<std::int64_t> place) {
  if (!(value < 0) && !(value > most)) return;
  std::string at;
  for (const std::int64_t index : place) at += (at.empty() ? "" : ", ") + std::to_string(index);
  fail(ErrorCode::bad_option, "write_page: " + indexed(name, layer) + " has " + std::to_string(value) + " at (" + at +
                                  "); it must be " +
                                  (value < 0  ? "at least 0"
                                   : most < 2 ? "at most 1"
                                              : "finite"));
}

// Softmax in few bits may round a little above 1; norms know no most.
void check_values(const Page& page) {
  for (std::size_t layer = 0; layer < page.weights.size(); ++layer) {
    const View3<const float>& weights = page.weights[layer];
    for (std::int64_t h = 0; h < weights.extent(0); ++h)
      for (std::int64_t i = 0; i < weights.extent(1); ++i)
        for (std::int64_t j = 0; j < weights.extent(2); ++j)
          check_value("weights", layer, weights(h, i, j), 1.001f, {h, i, j});
  }
  for (std::size_t layer = 0; layer < page.norms.size(); ++layer)
    for (std::int64_t h = 0; h < page.norms[layer].extent(0); ++h)
      for (std::int64_t j = 0; j < page.norms[layer].extent(1); ++j)
        check_value("norms", layer, page.norms[layer](h, j), std::numeric_limits<float>::max(), {h, j});
}

std::int64_t ceil_divided(std::int64_t a, std::int64_t b) { return (a + b - 1) / b; }

}  // namespace

PagePlan plan_page(const Page& page) {
  check_layers(page);
  const HeadStatsSpec& spec = page.layers[0]->spec();
  check_tokens(page, spec);
  check_special(page, spec);
  check_norms(page, spec);
  PagePlan plan{static_cast<std::int64_t>(page.layers.size()), spec.heads, spec.q_len, spec.kv_len};
  plan.full = !page.weights.empty();
  plan.norm = plan.full ? !page.norms.empty() : spec.norm_weighted;
  if (plan.full) {
    check_weights(page, spec);
    check_values(page);
    return plan;
  }
  if (spec.bin == 0)
    fail(ErrorCode::bad_option, "write_page: weights is empty and layers[0] has bin 0; a page shows weights or a map");
  const std::int64_t rows = ceil_divided(spec.q_len, spec.bin), columns = ceil_divided(spec.kv_len, spec.bin);
  plan.joined = ceil_divided(std::max(rows, columns), kMapSide);
  plan.rows = ceil_divided(rows, plan.joined), plan.columns = ceil_divided(columns, plan.joined);
  plan.received = spec.received;
  plan.index_bytes = spec.kv_len < 65536 ? 2 : 4;
  // A row has two bytes for its entropy and index_bytes + 2 a key; a key two for what it receives; four of base64 are
  // three bytes.
  const std::int64_t fixed = 8 + 2 * spec.q_len + (plan.received ? 2 * spec.kv_len : 0) + 2 * plan.rows * plan.columns;
  const std::int64_t room = kPageBytes / 4 * 3 / (plan.layers * plan.heads * (plan.norm ? 2 : 1)) - fixed;
  plan.top = std::clamp(room / (spec.q_len * (plan.index_bytes + 2)), std::int64_t{1}, spec.top);
  return plan;
}

}  // namespace multihead
