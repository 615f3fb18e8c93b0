// SPDX-License-Identifier: Apache-2.0
// WordPiece on texts small enough to be read: ids, places, limits, added tokens, and what the constructor refuses.
#include "multihead/wordpiece.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "multihead/error.hpp"
#include "problem.hpp"

namespace multihead {
namespace {

WordPieceModel small_model() {
  WordPieceModel model;
  model.vocabulary = {"[PAD]", "[UNK]", "[CLS]",  "[SEP]", "[MASK]", "un",   "##aff",    "##able", "##a", "a",
                      "##b",   "play",  "##ing",  ".",     "'",      "中",   "文",       "e",      "ete", "i",
                      "##x",   "x",     "resume", "é",     "##é",    "Play", "##\u0307", "-",      "und", "##i"};
  for (std::int64_t id : {0, 1, 2, 3, 4})
    model.added.push_back({.content = model.vocabulary[static_cast<std::size_t>(id)], .id = id, .special = true});
  return model;
}

// "text@begin-end" of each token.
std::vector<std::string> shown(const WordPiece& tokenizer, const std::vector<Token>& tokens) {
  std::vector<std::string> words;
  for (const Token& token : tokens)
    words.push_back(std::string(tokenizer.text(token.id)) + "@" + std::to_string(token.begin) + "-" +
                    std::to_string(token.end));
  return words;
}
std::vector<std::string> shown(const WordPieceModel& model, std::string_view text) {
  const WordPiece tokenizer(model);
  return shown(tokenizer, tokenizer.tokens(text));
}
using Shown = std::vector<std::string>;

TEST(WordPiece, CutsWordsIntoTheLongestTokensThereAre) {
  EXPECT_EQ(shown(small_model(), "unaffable playing."),
            (Shown{"un@0-2", "##aff@2-5", "##able@5-9", "play@10-14", "##ing@14-17", ".@17-18"}));
  EXPECT_EQ(shown(small_model(), "und playful a"), (Shown{"und@0-3", "[UNK]@4-11", "a@12-13"}));
  EXPECT_EQ(shown(small_model(), "don't"), (Shown{"[UNK]@0-3", "'@3-4", "[UNK]@4-5"}));
  EXPECT_TRUE(shown(small_model(), "").empty());
  EXPECT_TRUE(shown(small_model(), " \t\n\u3000\u00a0").empty());
}

TEST(WordPiece, PlacesAreThoseOfTheBytesAsGiven) {
  // Accents go, precomposed or not; the combining mark belongs to no token when it ends a word.
  EXPECT_EQ(shown(small_model(), "R\u00c9SUM\u00c9 re\u0301sume\u0301"), (Shown{"resume@0-8", "resume@9-17"}));
  EXPECT_EQ(shown(small_model(), "中a文"), (Shown{"中@0-3", "a@3-4", "文@4-7"}));
  // U+0130 is i and U+0307, which goes only before letters get their lower case.
  EXPECT_EQ(shown(small_model(), "\u0130"), (Shown{"i@0-2"}));
  WordPieceModel kept = small_model();
  kept.strip_accents = false;
  EXPECT_EQ(shown(kept, "\u0130"), (Shown{"i@0-2", "##\u0307@0-2"}));
  EXPECT_EQ(shown(kept, "\u00c9\u00e9"), (Shown{"é@0-2", "##é@2-4"}));
  // What is taken out of a word lies inside its token.
  EXPECT_EQ(shown(small_model(), "u\u00adn\u200baffab\u0301le"), (Shown{"un@0-4", "##aff@7-10", "##able@10-16"}));
}

TEST(WordPiece, ReordersMarksButNotTheirPlaces) {
  WordPieceModel model = small_model();  // neither mark is nonspacing; their classes are 224 and 216
  model.vocabulary.insert(model.vocabulary.end(), {"##\u302e", "##\U0001d165"});
  EXPECT_EQ(shown(model, "a\u302e\U0001d165"), (Shown{"a@0-1", "##\U0001d165@1-4", "##\u302e@4-8"}));
  model.strip_accents = false;
  EXPECT_EQ(shown(model, "a\u302e\U0001d165"), (Shown{"a@0-1", "##\u302e@1-4", "##\U0001d165@4-8"}));
}

TEST(WordPiece, ReadsEveryOption) {
  WordPieceModel model = small_model();
  model.lowercase = false;
  EXPECT_EQ(shown(model, "Play PLAY é"), (Shown{"Play@0-4", "[UNK]@5-9", "é@10-12"}));
  model.strip_accents = true;
  EXPECT_EQ(shown(model, "éte é"), (Shown{"ete@0-4", "e@5-7"}));
  model = small_model();
  model.chinese_chars = false;
  EXPECT_EQ(shown(model, "中 中文"), (Shown{"中@0-3", "[UNK]@4-10"}));
  model = small_model();
  EXPECT_EQ(shown(model, std::string_view("a\0b x", 5)), (Shown{"a@0-1", "##b@2-3", "x@4-5"}));
  model.clean_text = false;
  EXPECT_EQ(shown(model, std::string_view("a\0b\rx", 5)), (Shown{"[UNK]@0-3", "x@4-5"}));
  model = small_model();
  model.max_letters = 3;
  EXPECT_EQ(shown(model, "xab xaba"), (Shown{"x@0-1", "##a@1-2", "##b@2-3", "[UNK]@4-8"}));
  model.max_letters = 0;
  EXPECT_EQ(shown(model, "x ."), (Shown{"[UNK]@0-1", "[UNK]@2-3"}));
  model = small_model();
  model.continuing = "";
  EXPECT_EQ(shown(model, "aplay"), (Shown{"a@0-1", "play@1-5"}));
}

TEST(WordPiece, CountsLettersNotBytes) {
  WordPieceModel model = small_model();
  model.strip_accents = false;
  std::string hundred;
  for (int i = 0; i < 100; ++i) hundred += "é";
  EXPECT_EQ(shown(model, hundred).size(), 100u);
  EXPECT_EQ(shown(model, hundred + "é"), (Shown{"[UNK]@0-202"}));
  EXPECT_EQ(shown(model, std::string(10000, 'a')), (Shown{"[UNK]@0-10000"}));
}

TEST(WordPiece, TakesBytesThatAreNotUtf8AsReplacementCharacters) {
  // One for each maximal subpart: F0 9F 98 is one, C0 AF are two, ED A0 80 (a surrogate) are three.
  EXPECT_EQ(shown(small_model(),
                  "a\xF0\x9F\x98"
                  "b"),
            (Shown{"a@0-1", "##b@4-5"}));
  WordPieceModel model = small_model();
  model.clean_text = false;
  model.vocabulary.insert(model.vocabulary.end(), {"\uFFFD", "##\uFFFD"});
  const auto replaced = [&](const char* text) { return shown(model, text); };
  EXPECT_EQ(replaced("\xF0\x9F\x98"), (Shown{"\uFFFD@0-3"}));
  EXPECT_EQ(replaced("\xC0\xAF"), (Shown{"\uFFFD@0-1", "##\uFFFD@1-2"}));
  EXPECT_EQ(replaced("\xED\xA0\x80"), (Shown{"\uFFFD@0-1", "##\uFFFD@1-2", "##\uFFFD@2-3"}));
  EXPECT_EQ(replaced("\xF4\x90\x80\x80"), (Shown{"\uFFFD@0-1", "##\uFFFD@1-2", "##\uFFFD@2-3", "##\uFFFD@3-4"}));
  EXPECT_EQ(replaced("\xE4\xB8\xE4"), (Shown{"\uFFFD@0-2", "##\uFFFD@2-3"}));
}

TEST(WordPiece, FindsAddedTokensBeforeAnythingElse) {
  EXPECT_EQ(shown(small_model(), "a[MASK]b [mask]"),
            (Shown{"a@0-1", "[MASK]@1-7", "[UNK]@7-8", "[UNK]@9-10", "[UNK]@10-14", "[UNK]@14-15"}));
  WordPieceModel model = small_model();
  const std::size_t next = model.vocabulary.size();
  const auto add = [&](AddedToken token) {
    token.id = static_cast<std::int64_t>(next + model.added.size() - 5);
    model.added.push_back(token);
  };
  add({.content = "<l>", .lstrip = true});
  add({.content = "<r>", .rstrip = true});
  add({.content = "<w>", .single_word = true});
  add({.content = "<ll>"});
  add({.content = "<l>>"});
  add({.content = "\u00c9cole", .normalized = true});
  EXPECT_EQ(shown(model, "a  <l> a"), (Shown{"a@0-1", "<l>@1-6", "a@7-8"}));
  EXPECT_EQ(shown(model, "a <r>  a"), (Shown{"a@0-1", "<r>@2-7", "a@7-8"}));
  EXPECT_EQ(shown(model, "<r> <l>"), (Shown{"<r>@0-4", "<l>@4-7"}));
  EXPECT_EQ(shown(model, "<w>.<w>"), (Shown{"<w>@0-3", ".@3-4", "<w>@4-7"}));
  EXPECT_EQ(shown(model, "<w>é").size(), 4u);  // < w > e, for é is a letter of a word
  EXPECT_EQ(shown(model, "<l>> <ll>"), (Shown{"<l>>@0-4", "<ll>@5-9"}));
  EXPECT_EQ(shown(model, "e\u0301COLEx"), (Shown{"École@0-7", "x@7-8"}));

  const WordPiece tokenizer(model);
  EXPECT_EQ(tokenizer.size(), static_cast<std::int64_t>(next + 6));
  EXPECT_EQ(tokenizer.find("École"), static_cast<std::int64_t>(next + 5));
  EXPECT_FALSE(tokenizer.special(tokenizer.size() - 1));
  EXPECT_TRUE(shown(tokenizer, tokenizer.tokens("cole")) == Shown{"[UNK]@0-4"});
}

TEST(WordPiece, KnowsItsTokens) {
  const WordPiece tokenizer(small_model());
  EXPECT_EQ(tokenizer.size(), 30);
  EXPECT_EQ(tokenizer.text(7), "##able");
  EXPECT_EQ(tokenizer.find("##able"), 7);
  EXPECT_EQ(tokenizer.find("able"), std::nullopt);
  EXPECT_EQ(tokenizer.find(""), std::nullopt);
  for (std::int64_t id = -1; id <= 30; ++id) EXPECT_EQ(tokenizer.special(id), id >= 0 && id < 5);
  EXPECT_THROW(tokenizer.text(-1), Error);
  EXPECT_THROW(tokenizer.text(30), Error);
  WordPieceModel bare = small_model();
  bare.added.clear();
  for (std::int64_t id = 0; id < 5; ++id) EXPECT_EQ(WordPiece(bare).special(id), id >= 1 && id <= 3);
}

TEST(WordPiece, EncodesOneTextWithinALimit) {
  const WordPiece tokenizer(small_model());
  const std::string text = " unaffable play";
  EXPECT_EQ(shown(tokenizer, tokenizer.encode(text)),
            (Shown{"[CLS]@0-0", "un@1-3", "##aff@3-6", "##able@6-10", "play@11-15", "[SEP]@15-15"}));
  EXPECT_EQ(shown(tokenizer, tokenizer.encode(text, 4)), (Shown{"[CLS]@0-0", "un@1-3", "##aff@3-6", "[SEP]@15-15"}));
  EXPECT_EQ(tokenizer.encode(text, 2).size(), 2u);
  EXPECT_EQ(tokenizer.encode(text, 6).size(), 6u);
  for (const Token& token : tokenizer.encode(text)) EXPECT_EQ(token.type, 0);
  EXPECT_THROW(tokenizer.encode(text, 1), Error);
}

TEST(WordPiece, EncodesTwoTextsWithinALimit) {
  const WordPiece tokenizer(small_model());
  const auto lengths = [&](int first, int second, std::int64_t most) {
    std::string a, b;
    for (int i = 0; i < first; ++i) a += "a ";
    for (int i = 0; i < second; ++i) b += "x ";
    const std::vector<Token> tokens = tokenizer.encode(a, b, most);
    const std::size_t split = 2 + static_cast<std::size_t>(std::count_if(tokens.begin(), tokens.end(),
                                                                         [](const Token& t) { return t.id == 9; }));
    for (std::size_t i = 0; i < tokens.size(); ++i) EXPECT_EQ(tokens[i].type, i < split ? 0 : 1);
    EXPECT_EQ(tokens.front().id, 2);
    EXPECT_EQ(tokens[split - 1].id, 3);
    EXPECT_EQ(tokens[split - 1].begin, a.size());
    EXPECT_EQ(tokens.back().id, 3);
    EXPECT_EQ(tokens.back().end, b.size());
    return std::pair(split - 2, tokens.size() - split - 1);
  };
  using Counts = std::pair<std::size_t, std::size_t>;
  EXPECT_EQ(lengths(2, 3, 8), Counts(2, 3));
  EXPECT_EQ(lengths(2, 6, 8), Counts(2, 3));
  EXPECT_EQ(lengths(6, 2, 8), Counts(3, 2));
  EXPECT_EQ(lengths(6, 6, 8), Counts(2, 3));
  EXPECT_EQ(lengths(7, 6, 8), Counts(3, 2));
  EXPECT_EQ(lengths(6, 7, 9), Counts(3, 3));
  EXPECT_EQ(lengths(1, 9, 4), Counts(0, 1));
  EXPECT_EQ(lengths(4, 4, 3), Counts(0, 0));
  EXPECT_THROW(tokenizer.encode("a", "x", 2), Error);
}

TEST(WordPiece, RefusesWhatIsNoVocabulary) {
  const auto refused = [](const char* words, const std::function<void(WordPieceModel&)>& spoil) {
    WordPieceModel model = small_model();
    spoil(model);
    try {
      const WordPiece tokenizer(model);
      ADD_FAILURE() << "accepted: " << words;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::bad_option);
      EXPECT_NE(std::string(error.what()).find(words), std::string::npos) << error.what();
    }
  };
  refused("no unknown token \"[unk]\"", [](WordPieceModel& m) { m.unknown = "[unk]"; });
  refused("no token \"<s>\", which is to classify", [](WordPieceModel& m) { m.classify = "<s>"; });
  refused("no token \"</s>\", which is to separate", [](WordPieceModel& m) { m.separate = "</s>"; });
  refused("\"a\" twice, with the ids 9 and 30", [](WordPieceModel& m) { m.vocabulary.push_back("a"); });
  refused("max_letters is -1", [](WordPieceModel& m) { m.max_letters = -1; });
  refused("\"un\" with the id 30: the vocabulary has it with the id 5",
          [](WordPieceModel& m) { m.added.push_back({.content = "un", .id = 30}); });
  refused("\"new\" with the id 5: the next free id is 30",
          [](WordPieceModel& m) { m.added.push_back({.content = "new", .id = 5}); });
  refused("\"newer\" with the id 32: the next free id is 31", [](WordPieceModel& m) {
    m.added.push_back({.content = "new", .id = 30});
    m.added.push_back({.content = "newer", .id = 32});
  });
  refused("the next free id is 30", [](WordPieceModel& m) { m.added.push_back({.content = "new", .id = -1}); });
  refused("stands twice", [](WordPieceModel& m) { m.added.push_back(m.added.back()); });
  refused("\"\" with the id 30 is empty", [](WordPieceModel& m) { m.added.push_back({.content = "", .id = 30}); });
  refused("normalization leaves nothing",
          [](WordPieceModel& m) { m.added.push_back({.content = "\u00ad", .id = 30, .normalized = true}); });
  refused("the same as of another one", [](WordPieceModel& m) {
    m.added.push_back({.content = "Yes", .id = 30, .normalized = true});
    m.added.push_back({.content = "yes", .id = 31, .normalized = true});
  });
}

TEST(WordPiece, IdsWithoutATokenAreEmpty) {
  WordPieceModel model = small_model();
  model.vocabulary.insert(model.vocabulary.end(), {"", "", "last"});
  const WordPiece tokenizer(model);
  EXPECT_EQ(tokenizer.text(30), "");
  EXPECT_EQ(tokenizer.find("last"), 32);
}

TEST(WordPiece, TokensOfAnyBytesLieInOrderInsideTheText) {
  const WordPiece tokenizer(small_model());
  testing::Random random(11);
  const std::vector<std::string> parts = {
      "a",      "unaffable",    " ",  "é",      "e\u0301",  "\u0301", "中",           "[SEP]", ".",
      "\u0130", "\u0345\u0301", "한", "\u200b", "\xF0\x9F", "\xFF",   "\u0f73\u0f71", "\n"};
  for (int trial = 0; trial < (testing::quick_share() ? 200 : 2000); ++trial) {
    std::string text;
    for (std::uint64_t left = random.bits() % 30; left > 0; --left)
      text += random.bits() % 8 ? parts[random.bits() % parts.size()]
                                : std::string(1, static_cast<char>(static_cast<unsigned char>(random.bits() % 256)));
    const std::vector<Token> tokens = tokenizer.encode(text);
    ASSERT_EQ(tokens.front().id, 2);
    ASSERT_EQ(tokens.back().id, 3);
    for (std::size_t i = 1; i < tokens.size(); ++i) {
      ASSERT_LE(tokens[i - 1].begin, tokens[i].begin);
      ASSERT_LE(tokens[i - 1].end, tokens[i].end);
      ASSERT_LE(tokens[i].end, text.size());
      ASSERT_TRUE(tokens[i].begin < tokens[i].end || i + 1 == tokens.size());
    }
    const std::vector<Token> alone = tokenizer.tokens(text);
    ASSERT_EQ(alone.size() + 2, tokens.size());
  }
}

TEST(WordPiece, LongTextsAreReadWhole) {
  std::string text;
  while (text.size() < (1u << 20)) text += "unaffable pla\u00fd, \u4e2d. ";
  const WordPiece tokenizer(small_model());
  const std::vector<Token> tokens = tokenizer.tokens(text);
  EXPECT_EQ(tokens.size(), text.size() / 22 * 7);
  std::string marks = "a";
  while (marks.size() < (1u << 20)) marks += "\u0301\u0345\u0334";
  EXPECT_EQ(shown(tokenizer, tokenizer.tokens(marks)), (Shown{"a@0-1"}));
}

}  // namespace
}  // namespace multihead
