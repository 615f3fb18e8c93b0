// SPDX-License-Identifier: Apache-2.0
// BERT's normalizer, step by step as Hugging Face tokenizers takes them (normalizers/bert.rs), with its alignments.
#include "models/wordpiece_normalize.hpp"

#include <algorithm>
#include <utility>

#include "models/wordpiece_unicode.hpp"

namespace multihead {
namespace {

// Keeps the letters for which keep(letter), in their order.
template <class Keep>
void filter(Letters& text, Keep keep) {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < text.size(); ++i)
    if (keep(text.codes[i])) {
      text.codes[kept] = text.codes[i];
      text.places[kept++] = text.places[i];
    }
  text.codes.resize(kept);
  text.places.resize(kept);
}

void clean(Letters& text) {
  filter(text, [](char32_t letter) { return !is_removed(letter); });
  for (char32_t& letter : text.codes)
    if (is_space(letter)) letter = U' ';
}

Letters set_chinese_apart(const Letters& text) {
  Letters apart;
  for (std::size_t i = 0; i < text.size(); ++i) {
    const bool chinese = is_chinese(text.codes[i]);
    if (chinese) apart.push(U' ', text.places[i]);
    apart.push(text.codes[i], text.places[i]);
    if (chinese) apart.push(U' ', text.places[i]);
  }
  return apart;
}

// Canonical decomposition and order. The pieces of a run of marks are sorted, their places are not: in the sorted run
// the n-th piece that heads a decomposition has the n-th letter's place, the others that of the head before them. (One
// is before them: a decomposition's classes ascend.)
class Decomposer {
 public:
  explicit Decomposer(const Letters& text) : text_(text) {}

  Letters run() {
    for (char32_t letter : text_.codes) {
      char32_t parts[kMaxDecomposed];
      const int count = decompose(letter, parts);
      for (int i = 0; i < count; ++i) {
        const int order = combining_class(parts[i]);
        if (order == 0) flush();
        pending_.push_back({order, parts[i], i == 0});
      }
    }
    flush();
    return std::move(decomposed_);
  }

 private:
  struct Piece {
    int order;
    char32_t letter;
    bool head;
  };

  void flush() {
    if (pending_.size() > 1)
      std::stable_sort(pending_.begin(), pending_.end(),
                       [](const Piece& a, const Piece& b) { return a.order < b.order; });
    for (const Piece& piece : pending_) {
      heads_ += piece.head;
      decomposed_.push(piece.letter, text_.places[heads_ - 1]);
    }
    pending_.clear();
  }

  const Letters& text_;
  Letters decomposed_;
  std::vector<Piece> pending_;
  std::size_t heads_ = 0;
};

Letters lower(const Letters& text) {
  Letters lowered;
  lowered.codes.reserve(text.size());
  lowered.places.reserve(text.size());
  for (std::size_t i = 0; i < text.size(); ++i) {
    char32_t cases[2];
    const int count = lower_case(text.codes[i], cases);
    for (int k = 0; k < count; ++k) lowered.push(cases[k], text.places[i]);
  }
  return lowered;
}

}  // namespace

Letters Letters::part(std::size_t begin, std::size_t end) const {
  const auto from = static_cast<std::ptrdiff_t>(begin), to = static_cast<std::ptrdiff_t>(end);
  return {codes.substr(begin, end - begin), {places.begin() + from, places.begin() + to}};
}

Letters decode(std::string_view text) {
  Letters letters;
  letters.codes.reserve(text.size());
  letters.places.reserve(text.size());
  for (std::size_t at = 0; at < text.size();) {
    const Decoded next = decode_utf8(text, at);
    letters.push(next.letter, {at, at + next.bytes});
    at += next.bytes;
  }
  return letters;
}

Letters normalize(Letters text, const NormalizeOptions& options) {
  const bool ascii = std::all_of(text.codes.begin(), text.codes.end(), [](char32_t letter) { return letter < 0x80; });
  if (options.clean_text) clean(text);
  if (options.chinese_chars && !ascii) text = set_chinese_apart(text);
  if (options.strip_accents && !ascii) {
    text = Decomposer(text).run();
    filter(text, [](char32_t letter) { return !is_nonspacing(letter); });
  }
  if (options.lowercase) text = lower(text);
  return text;
}

}  // namespace multihead
