// SPDX-License-Identifier: Apache-2.0
// A text as letters that know their place in it, and what BERT's normalizer makes of them.
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <vector>

namespace multihead {

// Bytes [begin, end) of the text.
struct Place {
  std::size_t begin, end;
};

struct Letters {
  std::u32string codes;
  std::vector<Place> places;  // as many; neither begins nor ends ever go back

  std::size_t size() const noexcept { return codes.size(); }
  void push(char32_t code, Place place) { codes.push_back(code), places.push_back(place); }
  Letters part(std::size_t begin, std::size_t end) const;
};

Letters decode(std::string_view text);

struct NormalizeOptions {
  bool clean_text, chinese_chars, strip_accents, lowercase;
};

// In this order: unwanted letters go and white space becomes ' '; a space comes before and after each Chinese letter;
// letters are decomposed and lose their nonspacing marks; each gets its lower case. A letter's place is that of the one
// it stands for; one that another brought along has that one's place.
Letters normalize(Letters text, const NormalizeOptions& options);

}  // namespace multihead
