// SPDX-License-Identifier: Apache-2.0
// Reads sentences with marked pairs of words.
#include <algorithm>
#include <charconv>

#include "multihead/error.hpp"
#include "multihead/relations.hpp"

namespace multihead {

namespace {

constexpr std::string_view kSpaces = " \t", kPunctuation = ".,;:!?\"()";
constexpr std::string_view kRelations = "relations:";

std::vector<std::string_view> split(std::string_view text) {
  std::vector<std::string_view> pieces;
  while (true) {
    const std::size_t begin = text.find_first_not_of(kSpaces);
    if (begin == std::string_view::npos) return pieces;
    const std::size_t end = std::min(text.find_first_of(kSpaces, begin), text.size());
    pieces.push_back(text.substr(begin, end - begin));
    text.remove_prefix(end);
  }
}

// What spaces part, marks before and behind it apart, each a word of its own.
std::vector<MarkedSentence::Word> words_of(std::string_view text) {
  std::vector<MarkedSentence::Word> words;
  for (const std::string_view piece : split(text)) {
    const auto at = static_cast<std::size_t>(piece.data() - text.data());
    const std::size_t begin = std::min(piece.find_first_not_of(kPunctuation), piece.size());
    const std::size_t end = begin == piece.size() ? begin : piece.find_last_not_of(kPunctuation) + 1;
    for (std::size_t i = 0; i < begin; ++i) words.push_back({at + i, at + i + 1, true});
    if (end > begin) words.push_back({at + begin, at + end, false});
    for (std::size_t i = end; i < piece.size(); ++i) words.push_back({at + i, at + i + 1, true});
  }
  return words;
}

class Reader {
 public:
  explicit Reader(const std::string& name) : name_(name) {}

  MarkedText read(std::string_view text) {
    if (text.starts_with("\xEF\xBB\xBF")) text.remove_prefix(3);  // a byte order mark
    while (!text.empty()) {
      const std::size_t end = std::min(text.find('\n'), text.size());
      std::string_view line = text.substr(0, end);
      text.remove_prefix(std::min(end + 1, text.size()));
      if (line.ends_with('\r')) line.remove_suffix(1);
      ++line_;
      if (line.find_first_not_of(kSpaces) != std::string_view::npos && !line.starts_with('#')) take(line);
    }
    if (read_.relations.empty()) refuse("there is no line \"relations: NAME ...\"");
    return std::move(read_);
  }

 private:
  [[noreturn]] void refuse(const std::string& rule) const {
    throw Error(ErrorCode::file_malformed,
                "parse_marked_text: " + name_ + ": line " + std::to_string(std::max(line_, 1)) + ": " + rule);
  }

  void take(std::string_view line) {
    if (read_.relations.empty())
      take_relations(line);
    else if (kSpaces.find(line.front()) != std::string_view::npos)
      take_pairs(line);
    else
      read_.sentences.push_back({std::string(line), words_of(line), {}, line_});
  }

  void take_relations(std::string_view line) {
    if (!line.starts_with(kRelations)) refuse("the first line must be \"relations: NAME ...\"");
    for (const std::string_view relation : split(line.substr(kRelations.size()))) {
      if (relation_of(relation) >= 0) refuse("relation '" + std::string(relation) + "' is named twice");
      read_.relations.emplace_back(relation);
    }
    if (read_.relations.empty()) refuse("no relation is named");
  }

  std::int64_t relation_of(std::string_view name) const {
    const auto found = std::find(read_.relations.begin(), read_.relations.end(), name);
    return found == read_.relations.end() ? -1 : found - read_.relations.begin();
  }

  // "  determiner: The>gardener the#2>stove"
  void take_pairs(std::string_view line) {
    if (read_.sentences.empty()) refuse("pairs stand before any sentence; a sentence begins at the line's begin");
    MarkedSentence& sentence = read_.sentences.back();
    const std::vector<std::string_view> pieces = split(line);
    if (!pieces.front().ends_with(':')) refuse("pairs begin with a relation and a colon, such as \"subject:\"");
    const std::string_view name = pieces.front().substr(0, pieces.front().size() - 1);
    const std::int64_t relation = relation_of(name);
    if (relation < 0) {
      std::string known;
      for (const std::string& one : read_.relations) known += (known.empty() ? "" : ", ") + one;
      refuse("'" + std::string(name) + "' is no relation of this file; it must be one of " + known);
    }
    if (pieces.size() < 2) refuse("relation '" + std::string(name) + "' has no pair");
    for (std::size_t i = 1; i < pieces.size(); ++i) {
      const std::string_view pair = pieces[i];
      const std::size_t arrow = pair.find('>');
      if (arrow == std::string_view::npos || pair.find('>', arrow + 1) != std::string_view::npos)
        refuse("'" + std::string(pair) + "' is no pair; it must be DEPENDENT>HEAD");
      const MarkedPair marked{relation, word_of(sentence, pair.substr(0, arrow)),
                              word_of(sentence, pair.substr(arrow + 1))};
      if (marked.dependent == marked.head) refuse("'" + std::string(pair) + "' pairs a word with itself");
      for (const MarkedPair& other : sentence.pairs)
        if (other.relation == relation && other.dependent == marked.dependent && other.head == marked.head)
          refuse("'" + std::string(pair) + "' is marked twice");
      sentence.pairs.push_back(marked);
    }
  }

  // "stove", or "the#2" where the word stands more than once.
  std::int64_t word_of(const MarkedSentence& sentence, std::string_view named) const {
    const std::size_t sign = named.rfind('#');
    const std::string_view form = named.substr(0, sign);
    std::vector<std::int64_t> places;
    for (std::size_t i = 0; i < sentence.words.size(); ++i)
      if (sentence.word(static_cast<std::int64_t>(i)) == form) places.push_back(static_cast<std::int64_t>(i));
    const std::string quoted = "'" + std::string(form) + "'";
    if (places.empty()) refuse(quoted + " is no word of the sentence");
    if (sign == std::string_view::npos) {
      if (places.size() > 1)
        refuse(quoted + " stands " + std::to_string(places.size()) + " times in the sentence; " + std::string(form) +
               "#1, " + std::string(form) + "#2 .. say which");
      return places.front();
    }
    const std::string_view digits = named.substr(sign + 1);
    std::size_t number = 0;
    const auto [end, error] = std::from_chars(digits.data(), digits.data() + digits.size(), number);
    if (error != std::errc() || end != digits.data() + digits.size() || number < 1 || number > places.size())
      refuse("'" + std::string(named) + "': the sentence has #1 to #" + std::to_string(places.size()) + " of it");
    return places[number - 1];
  }

  const std::string& name_;
  int line_ = 0;
  MarkedText read_;
};

}  // namespace

MarkedText parse_marked_text(std::string_view text, const std::string& name) { return Reader(name).read(text); }

}  // namespace multihead
