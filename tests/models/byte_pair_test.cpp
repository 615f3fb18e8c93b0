// SPDX-License-Identifier: Apache-2.0
// BytePair: cuts, merges, added tokens, the way back, and every rule of its constructor.
#include "multihead/byte_pair.hpp"

#include <gtest/gtest.h>

#include "byte_letters.hpp"
#include "refusals.hpp"

namespace multihead::testing {
namespace {

using Ids = std::vector<std::int64_t>;

// Bytes, then "th", "the", " the", and what is added.
BytePairModel small() {
  BytePairModel model = bytes_alone();
  model.vocabulary.insert(model.vocabulary.end(), {"th", "the", "\u0120the"});
  model.merges = {{'t', 'h', 256}, {256, 'e', 257}, {' ', 257, 258}};
  return model;
}

AddedToken added(const std::string& content, std::int64_t id) {
  AddedToken token;
  token.content = content, token.id = id, token.special = true;
  return token;
}

TEST(BytePair, JoinsTheEarliestPairFirst) {
  const BytePair tokenizer(small());
  EXPECT_EQ(tokenizer.encode("the the"), (Ids{257, 258}));
  EXPECT_EQ(tokenizer.encode("tthe"), (Ids{'t', 257}));
  EXPECT_EQ(tokenizer.encode("t he"), (Ids{'t', ' ', 'h', 'e'}));  // words are cut before a space
  EXPECT_EQ(tokenizer.encode(""), Ids{});
  EXPECT_EQ(tokenizer.size(), 259);
  EXPECT_EQ(tokenizer.find(" the"), 258);
  EXPECT_EQ(tokenizer.find("no"), std::nullopt);
}

TEST(BytePair, EveryStringComesBack) {
  const BytePair tokenizer(small());
  std::string all;
  for (int byte = 0; byte < 256; ++byte) all += static_cast<char>(byte);
  for (const std::string& text : {all, std::string("caf\u00e9 \U0001F600\xff\xf0\x9f the"), std::string(70000, 't')})
    EXPECT_EQ(tokenizer.decode(tokenizer.encode(text)), text);
}

TEST(BytePair, EqualRanksJoinFromTheLeft) {
  BytePairModel model = bytes_alone();
  model.vocabulary.push_back("aa");
  model.merges = {{'a', 'a', 256}};
  EXPECT_EQ(BytePair(model).encode("aaa"), (Ids{256, 'a'}));
  EXPECT_EQ(BytePair(model).encode("aaaa"), (Ids{256, 256}));
}

TEST(BytePair, WholeWordsComeBeforeMerges) {
  BytePairModel model = small();
  model.vocabulary.push_back("he");  // that no merge makes
  EXPECT_EQ(BytePair(model).encode("he"), (Ids{'h', 'e'}));
  model.whole_words = true;
  EXPECT_EQ(BytePair(model).encode("he"), Ids{259});
}

TEST(BytePair, AddedTokensAndWhatStandsAround) {
  BytePairModel model = small();
  model.added = {added("<end>", 259)};
  model.before = {259}, model.after = {'!'};
  const BytePair tokenizer(model);
  EXPECT_EQ(tokenizer.encode("the<end>the"), (Ids{259, 257, 259, 257, '!'}));
  EXPECT_EQ(tokenizer.encode("the", false), Ids{257});
  EXPECT_TRUE(tokenizer.special(259));
  EXPECT_EQ(tokenizer.decode(Ids{257, 259, 'a'}), "the<end>a");
  EXPECT_EQ(tokenizer.decode(Ids{257, 259, 'a'}, false), "thea");
  EXPECT_EQ(tokenizer.find("<end>"), 259);
}

TEST(BytePair, ASpaceIsPutBefore) {
  BytePairModel model = small();
  model.prefix_space = true;
  EXPECT_EQ(BytePair(model).encode("the"), Ids{258});
  EXPECT_EQ(BytePair(model).encode(" the"), Ids{258});
  EXPECT_EQ(BytePair(model).encode(""), Ids{});
}

TEST(BytePair, Patterns) {
  BytePairModel model = small();
  const auto count = [&](WordPattern pattern, const std::string& text) {
    model.pattern = pattern;
    return BytePair(model).encode(text).size();
  };
  EXPECT_EQ(count(WordPattern::none, "a the"), 2u);  // a, " the"
  EXPECT_EQ(count(WordPattern::gpt2, "_the"), 2u);
  EXPECT_EQ(count(WordPattern::gpt2, "'the"), 4u);    // 't is a word: ' t h e
  EXPECT_EQ(count(WordPattern::gpt2, "'The"), 4u);    // but not 'T
  EXPECT_EQ(count(WordPattern::llama3, "_the"), 2u);  // a sign joins the word after it
}

TEST(BytePair, Refusals) {
  const auto refused = [](const Words& words, const std::function<void(BytePairModel&)>& change) {
    expect_error("BytePair", kOption, words, [&] {
      BytePairModel model = small();
      change(model);
      BytePair tokenizer(model);
    });
  };
  refused({"no token for byte 65"}, [](BytePairModel& m) { m.vocabulary['A'] = "AA"; });
  refused({"\"the\" twice"}, [](BytePairModel& m) { m.vocabulary.push_back("the"); });
  refused({"a merge has id 300"}, [](BytePairModel& m) { m.merges[0].merged = 300; });
  refused({"before has id -1"}, [](BytePairModel& m) { m.before = {-1}; });
  refused({"after has id 259"}, [](BytePairModel& m) { m.after = {259}; });
  refused({"must have the id 259"}, [](BytePairModel& m) { m.added = {added("<a>", 260)}; });
  refused({"must have the id 257"}, [](BytePairModel& m) { m.added = {added("the", 259)}; });
  refused({"is empty"}, [](BytePairModel& m) { m.added = {added("", 259)}; });
  refused({"stands twice"}, [](BytePairModel& m) { m.added = {added("the", 257), added("the", 257)}; });
  const BytePair tokenizer(small());
  expect_error("BytePair", kOption, {"id 259 is none"}, [&] { tokenizer.bytes(259); });
  expect_error("BytePair", kOption, {"id -1 is none"}, [&] { tokenizer.decode(Ids{'a', -1}); });
}

TEST(TextStream, HoldsBackLettersThatAreNotWhole) {
  const std::string text = "a\u00e9\u20ac\U0001F600b";
  for (std::size_t size = 1; size < 8; ++size) {
    TextStream stream;
    std::string out;
    for (std::size_t at = 0; at < text.size(); at += size) {
      const std::string more = stream.put(std::string_view(text).substr(at, size));
      EXPECT_TRUE(more.empty() || (more.front() & 0xC0) != 0x80);
      out += more;
    }
    EXPECT_EQ(out + stream.end(), text);
  }
  TextStream stream;
  EXPECT_EQ(stream.put("\xe2\x82"), "");
  EXPECT_EQ(stream.put("x"), "\ufffdx");  // one for the maximal part
  EXPECT_EQ(stream.put("\xff\xf0\x9f"), "\ufffd");
  EXPECT_EQ(stream.end(), "\ufffd");
  EXPECT_EQ(stream.end(), "");
}

}  // namespace
}  // namespace multihead::testing
