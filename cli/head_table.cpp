// SPDX-License-Identifier: Apache-2.0
// The heads of a run in numbers and strongest links, and the table of them.
#include "head_table.hpp"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <iostream>
#include <tuple>

#include "model.hpp"
#include "print.hpp"

namespace multihead::cli {

namespace {

Head head_of(const HeadTokens& tokens, const HeadStats& stats, std::int64_t layer, std::int64_t head,
             const HeadsArguments& arguments) {
  Head found{layer, head, summarise(stats, head), {}, 0, {}};
  found.labels = head_labels(stats, found.summary);
  const RowStatistics<const float> rows = stats.rows();
  const std::int64_t n = tokens.size();
  for (std::int64_t i = 0; i < n; ++i) {
    float largest = 0;
    for (std::int64_t place = 0; place < stats.spec().top; ++place) {
      const std::int64_t j = rows.top_keys(0, head, i, place);
      const float weight = rows.top_weights(0, head, i, place);
      if (j < 0) break;
      const bool between_others = i != j && tokens.ordinary(i) && tokens.ordinary(j);
      if (between_others && std::abs(i - j) > 1) largest = std::max(largest, weight);
      if (between_others || arguments.special) found.links.push_back({i, j, weight});
    }
    found.strength += static_cast<double>(largest);
  }
  found.strength /= static_cast<double>(std::max<std::int64_t>(n - tokens.specials(), 1));
  const auto kept = std::min<std::size_t>(found.links.size(), static_cast<std::size_t>(arguments.links));
  // Equal weights in the order of reading.
  const auto stronger = [](const Link& a, const Link& b) {
    return std::tuple(-a.weight, a.query, a.key) < std::tuple(-b.weight, b.query, b.key);
  };
  std::partial_sort(found.links.begin(), found.links.begin() + static_cast<std::ptrdiff_t>(kept), found.links.end(),
                    stronger);
  found.links.resize(kept);
  found.links.shrink_to_fit();
  return found;
}

double order_of(const Head& head, HeadOrder order) {
  switch (order) {
    case HeadOrder::entropy:
      return head.summary.entropy;
    case HeadOrder::largest:
      return head.summary.largest;
    case HeadOrder::distance:
      return head.summary.distance;
    case HeadOrder::previous:
      return head.previous();
    case HeadOrder::self:
      return head.self();
    case HeadOrder::next:
      return head.next();
    case HeadOrder::first:
      return head.first();
    case HeadOrder::special:
      return head.special();
    default:
      return 0;
  }
}

std::string joined(const std::vector<HeadLabel>& labels) {
  std::string text;
  for (const HeadLabel& label : labels)
    text += (text.empty() ? "" : ", ") + label.name + (label.name == "mixed" ? "" : ' ' + fixed(label.value, 2));
  return text;
}

std::string start_of(const Head& head) {
  return fitted(std::to_string(head.layer), 7) + fitted(std::to_string(head.head), 6) +
         fitted(fixed(head.special(), 2), 9) + fitted(fixed(head.self(), 2), 8);
}

void print_line(std::string line, std::size_t columns) {
  line.erase(line.find_last_not_of(' ') + 1);
  std::cout << (columns_of(line) > columns ? fitted(line, columns) : line) << '\n';
}

void print_numbers(const std::vector<Head>& heads, std::size_t columns) {
  print_line("layer  head  special  itself  previous  next  first  entropy  largest  distance  labels", columns);
  for (const Head& head : heads)
    print_line(start_of(head) + fitted(fixed(head.previous(), 2), 10) + fitted(fixed(head.next(), 2), 6) +
                   fitted(fixed(head.first(), 2), 7) + fitted(fixed(head.summary.entropy, 2), 9) +
                   fitted(fixed(head.summary.largest, 2), 9) + fitted(fixed(head.summary.distance, 1), 10) +
                   joined(head.labels),
               columns);
}

void print_links(const HeadTokens& tokens, const std::vector<Head>& heads, std::size_t columns) {
  // Columns of the place, of the numbers, of a label and of a link's least room. The label stays longest.
  constexpr std::size_t kPlace = 13, kNumbers = 17, kLabel = 18, kLink = 24;
  const bool links = columns >= kPlace + kLabel + kLink;
  const bool numbers = columns >= kPlace + kNumbers + kLabel + (links ? kLink : 0);
  const std::size_t before = kPlace + (numbers ? kNumbers : 0) + kLabel;
  print_line(std::string("layer  head  ") + (numbers ? "special  itself  " : "") + fitted("label", kLabel) +
                 (links ? "strongest links, each with its weight" : ""),
             columns);
  for (const Head& head : heads) {
    const std::string start = numbers ? start_of(head) : start_of(head).substr(0, kPlace);
    std::string line = start + fitted(label_text(head.labels), kLabel - 2) + "  ";
    std::size_t used = before;
    for (const Link& link : head.links) {
      const std::string text = tokens.names[static_cast<std::size_t>(link.query)] + " > " +
                               tokens.names[static_cast<std::size_t>(link.key)] + ' ' + fixed(link.weight, 2);
      if (!links || (used > before && used + columns_of(text) > columns)) break;
      line += text + "   ";
      used += columns_of(text) + 3;
    }
    print_line(line, columns);
  }
}

}  // namespace

std::int64_t top_for_links(const HeadTokens& tokens, std::int64_t links) {
  // Of a row's keys the special ones, its own and, for strength, its neighbours are passed over.
  const std::int64_t wanted = std::max(std::min(links, kMostTopKeys), std::int64_t{3}) + tokens.specials() + 1;
  return std::min({wanted, tokens.size(), kMostTopKeys});
}

std::vector<Head> heads_of(const HeadTokens& tokens, const std::vector<HeadStats>& layers,
                           const HeadsArguments& arguments) {
  std::vector<Head> heads;
  for (std::size_t layer = 0; layer < layers.size(); ++layer)
    for (std::int64_t head = 0; head < layers[layer].spec().heads; ++head)
      heads.push_back(head_of(tokens, layers[layer], static_cast<std::int64_t>(layer), head, arguments));
  return heads;
}

std::string label_text(const std::vector<HeadLabel>& labels) {
  if (labels.front().name == "mixed") return "mixed";
  const std::string more = labels.size() > 1 ? " +" + std::to_string(labels.size() - 1) : "";
  return labels.front().name + ' ' + fixed(labels.front().value, 2) + more;
}

void print_heads(const HeadTokens& tokens, std::vector<Head> heads, const HeadsArguments& arguments,
                 std::size_t columns) {
  std::stable_sort(heads.begin(), heads.end(), [&](const Head& a, const Head& b) {
    return order_of(a, arguments.sort) > order_of(b, arguments.sort);
  });
  if (arguments.stats)
    print_numbers(heads, columns);
  else
    print_links(tokens, heads, columns);
}

}  // namespace multihead::cli
