// SPDX-License-Identifier: Apache-2.0
// The parts of write_page(): what the page keeps, its text, its bytes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "multihead/inspect.hpp"

namespace multihead {

// What a page keeps of a model's heads.
struct PagePlan {
  std::int64_t layers = 0, heads = 0, q_len = 0, kv_len = 0;
  bool full = false;     // all weights; otherwise map and top keys
  bool norm = false;     // also times norms
  std::int64_t top = 0;  // keys a row; index_bytes each, and two for the weight
  std::int64_t index_bytes = 2;
  std::int64_t joined = 1;             // bins of the statistics' map, a side, to one of the page's
  std::int64_t rows = 0, columns = 0;  // of the page's map
  bool received = false;
};

// Throws as write_page() does.
PagePlan plan_page(const Page& page);

// The bytes of one head: all weights (norm: the norms, float32), or two scales, entropies, what keys receive, map, top
// keys, top weights.
std::vector<std::byte> head_bytes(const Page& page, const PagePlan& plan, std::int64_t layer, std::int64_t head,
                                  bool norm);

// What the script reads of all heads, as JSON without "<".
std::string page_json(const Page& page, const PagePlan& plan, bool compressed);

// Text as a string of JSON, quoted, that neither ends a script nor a line; what is not UTF-8 becomes U+FFFD.
std::string json_string(std::string_view text);
// The same as text of HTML.
std::string html_text(std::string_view text);
std::string base64(std::span<const std::byte> bytes);

// The template with <!--title--> twice and <!--data--> once.
std::string page_template();

}  // namespace multihead
