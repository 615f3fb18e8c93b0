// SPDX-License-Identifier: Apache-2.0
// The strict JSON under the readers: what it takes, and at which byte it refuses the rest.
#include <gtest/gtest.h>

#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "io/json.hpp"
#include "safetensors_file.hpp"

namespace multihead {
namespace {

using namespace std::string_literals;
using io::Json;

Json parsed(const std::string& text) {
  const std::vector<char> exact(text.begin(), text.end());  // no terminating NUL to read by mistake
  return io::parse_json(std::as_bytes(std::span(exact)), 0, {"parse", "a.json"});
}

std::string nested(int depth, const std::string& open = "[", const std::string& close = "]") {
  std::string text;
  for (int i = 0; i < depth; ++i) text += open;
  for (int i = 0; i < depth; ++i) text += close;
  return text;
}

TEST(StrictJson, TakesEveryKindOfValue) {
  EXPECT_EQ(parsed("  null\n"), Json(nullptr));
  EXPECT_EQ(parsed("true"), Json(true));
  EXPECT_EQ(parsed("18446744073709551615").get<std::uint64_t>(), 18446744073709551615u);
  EXPECT_EQ(parsed("-9223372036854775808").get<std::int64_t>(), std::numeric_limits<std::int64_t>::min());
  EXPECT_TRUE(parsed("18446744073709551616").is_number_float());
  EXPECT_TRUE(parsed("1e0").is_number_float());
  EXPECT_TRUE(parsed("1.0").is_number_float());
  EXPECT_EQ(parsed("1e-400").get<double>(), 0);
  EXPECT_EQ(parsed(R"("\u00e9\ud83d\ude00\n\u0000")").get<std::string>(), "\u00e9\U0001F600\n\0"s);
  EXPECT_EQ(parsed("\"\u00e9\U0001F600\x7f\"").get<std::string>(), "\u00e9\U0001F600\x7f");
  EXPECT_EQ(parsed(R"([1, [], {}, ""])").size(), 4u);
  const Json object = parsed("\t{\"b\" : {\"a\":1}, \"a\" : {\"a\":2}}\r\n ");  // the same key in two objects
  EXPECT_EQ(object["a"]["a"], 2);
  EXPECT_EQ(object["b"]["a"], 1);
}

TEST(StrictJson, NestsAtMost64Values) {
  EXPECT_NO_THROW(parsed(nested(64)));
  for (const int depth : {65, 100000}) {
    const auto parse = [&] { parsed(nested(depth)); };
    testing::expect_refusal(ErrorCode::file_malformed, parse, {"parse: a.json: byte 64: more than 64 values"});
  }
  const auto objects = [] { parsed(nested(65, "{\"a\":", "}")); };
  testing::expect_refusal(ErrorCode::file_malformed, objects, {"byte 320: more than 64 values"});
}

TEST(StrictJson, ManySiblingsTakeTheirNumberOfSteps) {  // their square would not end
  constexpr int kMany = 1'000'000;
  for (const char* value : {"{}", "[]", "0", "\"\""}) {
    std::string text = "[";
    for (int i = 0; i < kMany; ++i) text.append(value).append(",");
    text.back() = ']';
    EXPECT_EQ(parsed(text).size(), kMany) << value;
  }
}

TEST(StrictJson, BytesAreCountedFromTheFirstOfTheFile) {
  const std::string text = "{\"a\": x}";
  const auto parse = [&] { io::parse_json(testing::bytes_of(text), 8, {"parse", "a.json"}); };
  testing::expect_refusal(ErrorCode::file_malformed, parse, {"parse: a.json: byte 14: this is not JSON"});
}

struct Bad {
  const char* name;
  std::string text;
  std::size_t byte;
  const char* word;
  friend void PrintTo(const Bad& bad, std::ostream* out) { *out << bad.name; }
};

const std::vector<Bad> kBad{{"Empty", "", 0, "not JSON"},
                            {"OnlySpaces", "  ", 2, "not JSON"},
                            {"NotClosed", "{\"a\":1", 6, "not JSON"},
                            {"StringNotClosed", "\"abc", 4, "not JSON"},
                            {"CommaAtTheEnd", "[1,]", 3, "not JSON"},
                            {"Comment", "[1] // one", 4, "not JSON"},
                            {"TwoValues", "1 2", 2, "not JSON"},
                            {"NulAfterTheValue", "{}\0{}"s, 2, "NUL"},
                            {"NulAlone", "\0"s, 0, "NUL"},
                            {"NulInAString", "\"a\0b\""s, 2, "NUL"},
                            {"ByteOrderMark", "\xEF\xBB\xBF{}", 0, "byte order mark"},
                            {"LeadingZero", "01", 1, "not JSON"},
                            {"PlusSign", "+1", 0, "not JSON"},
                            {"Hexadecimal", "0x1", 1, "not JSON"},
                            {"PointAtTheEnd", "1.", 2, "not JSON"},
                            {"NaN", "NaN", 0, "not JSON"},
                            {"Infinity", "[-Infinity]", 2, "not JSON"},
                            {"BeyondFloat64", "[1e400 ]", 5, "float64"},
                            {"BeyondFloat64Below", "-1e400", 5, "float64"},
                            {"SingleQuotes", "'a'", 0, "not JSON"},
                            {"KeyWithoutQuotes", "{a:1}", 1, "not JSON"},
                            {"LineInAString", "\"a\nb\"", 2, "not JSON"},
                            {"UnknownEscape", "\"\\x41\"", 2, "not JSON"},
                            {"HalfASurrogatePair", "\"\\ud800\"", 7, "not JSON"},
                            {"LowSurrogateFirst", "\"\\udc00\"", 6, "not JSON"},
                            {"ByteThatUtf8Lacks", "\"\xff\"", 1, "not JSON"},
                            {"OverlongUtf8", "\"\xc0\xaf\"", 1, "not JSON"},
                            {"SurrogateInUtf8", "\"\xed\xa0\x80\"", 2, "not JSON"},
                            {"Utf8CutShort", "\"\xe2\x82\"", 3, "not JSON"},
                            {"BeyondUnicode", "\"\xf4\x90\x80\x80\"", 2, "not JSON"},
                            {"KeyTwice", "{\"a\":1,\"b\":2,\"a\":1}", 15, "key 'a' twice"},
                            {"KeyTwiceBelow", "[{},{\"x\":{\"a\":1,\"a\":1}}]", 18, "key 'a' twice"},
                            {"KeyTwiceByEscape", "{\"a\":1,\"\\u0061\":1}", 14, "key 'a' twice"},
                            {"EmptyKeyTwice", "{\"\":1,\"\":1}", 7, "key '' twice"}};

class StrictJsonRefuses : public ::testing::TestWithParam<Bad> {};
INSTANTIATE_TEST_SUITE_P(Texts, StrictJsonRefuses, ::testing::ValuesIn(kBad),
                         [](const auto& i) { return i.param.name; });

TEST_P(StrictJsonRefuses, WithTheByte) {
  const Bad& bad = GetParam();
  const std::string start = "parse: a.json: byte " + std::to_string(bad.byte) + ": ";
  testing::expect_refusal(ErrorCode::file_malformed, [&] { parsed(bad.text); }, {start, bad.word});
}

}  // namespace
}  // namespace multihead
