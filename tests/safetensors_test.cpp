// SPDX-License-Identifier: Apache-2.0
// .safetensors read: good files of every form, a table of hostile ones, mutated files, and what may be opened at all.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <ostream>
#include <string>
#include <vector>

#include "allocations.hpp"
#include "multihead/safetensors.hpp"
#include "problem.hpp"
#include "safetensors_file.hpp"
#include "test_dir.hpp"

namespace multihead {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using testing::bytes_of, testing::entry, testing::expect_refusal, testing::length_of, testing::safetensors;
using Shape = std::vector<std::int64_t>;

class SafetensorsReader : public testing::InFolder {};

Safetensors parsed(const std::string& content) { return Safetensors::parse(bytes_of(content), "good"); }

std::string repeated(const std::string& text, int times) {
  std::string all;
  for (int i = 0; i < times; ++i) all += text;
  return all;
}

// A file of one tensor a of two float32.
std::string one(const std::string& tensor, const std::string& data = std::string(8, '\1')) {
  return safetensors("{" + tensor + "}", data);
}
const std::string kGood = entry("a", "F32", "[2]", "[0,8]");

TEST_F(SafetensorsReader, GivesTensorsInOrderOfNamesWhereTheyLie) {
  const std::string header = "{" + entry("z", "U8", "[3]", "[0,3]") + " , " + entry("a", "F64", "[]", "[3,11]") + "," +
                             entry("B", "I16", "[0,5]", "[11,11]") + ",\"__metadata__\":{\"k\":\"v\",\"e\":\"\"}}";
  const std::string content = safetensors(header, "abc01234567");
  const Safetensors memory = parsed(content), file(put("a.safetensors", content));
  for (const Safetensors& read : {memory, file}) {
    ASSERT_EQ(read.tensors().size(), 3u);
    EXPECT_EQ(read.tensors()[0].name, "B");
    EXPECT_EQ(read.tensors()[1].name, "a");
    EXPECT_EQ(read.tensors()[2].name, "z");
    EXPECT_EQ(read.tensors()[0].shape, (Shape{0, 5}));
    EXPECT_TRUE(read.tensors()[0].bytes.empty());
    EXPECT_EQ(read.tensors()[1].dtype, "F64");
    EXPECT_EQ(read.tensors()[1].shape, Shape{});
    EXPECT_EQ(std::memcmp(read.tensors()[1].bytes.data(), "01234567", 8), 0);
    EXPECT_EQ(read.tensors()[2].bytes.size(), 3u);
    EXPECT_EQ(read.metadata(), (Metadata{{"e", ""}, {"k", "v"}}));
    EXPECT_EQ(read.find("z"), &read.tensors()[2]);
    for (const char* absent : {"", "A", "aa", "zz", "__metadata__"}) EXPECT_EQ(read.find(absent), nullptr) << absent;
  }
  EXPECT_EQ(static_cast<const void*>(memory.find("z")->bytes.data()), content.data() + 8 + header.size());
}

TEST_F(SafetensorsReader, AcceptsEveryFormOfAGoodFile) {
  const std::string empty = repeated("0,", 63) + "9007199254740992";
  for (const std::string& content :
       {safetensors("{}"), safetensors("{ \t\n\r}  "), one(kGood), one(kGood + " \n"),
        safetensors("{" + kGood + "}    ", "12345678"), one("\"__metadata__\":{}," + kGood),
        one(entry("", "F32", "[2]", "[0,8]")), one("\"a\":{\"data_offsets\":[0,8],\"shape\":[2],\"dtype\":\"F32\"}"),
        one(entry("a", "F4", "[16]", "[0,8]")), one(entry("a", "F6_E2M3", "[4]", "[0,3]"), "abc"),
        one(entry("a", "F32", "[" + empty + "]", "[0,0]"), ""), one(entry("a", "F32", "[1,2,1,1]", "[0,8]")),
        one(entry("a", "F32", "[0]", "[8,8]") + "," + entry("b", "F32", "[2]", "[0,8]"))})
    EXPECT_NO_THROW(parsed(content)) << content;
  int seeds = 0;
  for (const auto& seed : fs::directory_iterator(test_dir() / "corpus_safetensors")) {
    EXPECT_NO_THROW(Safetensors{seed.path()}) << seed.path();
    ++seeds;
  }
  EXPECT_EQ(seeds, 6);
}

TEST_F(SafetensorsReader, ReadsWhatThePythonPackageWrote) {
  const fs::path seeds = test_dir() / "corpus_safetensors";
  const Safetensors file(seeds / "every_dtype.safetensors");
  EXPECT_EQ(file.metadata(), (Metadata{{"format", "pt"}}));
  std::string dtypes;
  for (const StoredTensor& tensor : file.tensors()) dtypes.append(tensor.dtype).append(" ");
  EXPECT_EQ(dtypes, "BF16 BOOL C64 F32 F16 F32 F64 F8_E4M3 F8_E5M2 I16 I32 I64 I8 U16 U32 U64 U8 ");
  EXPECT_EQ(file.find("f32")->shape, (Shape{2, 2}));
  EXPECT_EQ(Elements<float>(*file.find("f32")).values()[3], 4);
  EXPECT_EQ(Elements<double>(*file.find("f64")).values()[0], 0.1);
  EXPECT_EQ(Elements<std::int64_t>(*file.find("i64")).values()[0], -1);
  EXPECT_NE(Safetensors(seeds / "names.safetensors").find("\u00fc\"\\\n\x01/x\x7f"), nullptr);
}

struct Hostile {
  const char* name;
  std::string content;
  std::vector<std::string> words;
  friend void PrintTo(const Hostile& file, std::ostream* out) { *out << file.name; }
};

std::string shaped(const std::string& shape, const std::string& offsets = "[0,8]", const std::string& dtype = "F32") {
  return one(entry("a", dtype, shape, offsets));
}
std::string pair(const std::string& first, const std::string& second) {
  return one(entry("a", "F32", "[1]", first) + "," + entry("b", "F32", "[1]", second));
}

const std::string kA = "tensor 'a': ";
const std::vector<Hostile> kHostile{
    {"Empty", "", {"byte 0: the file ends before"}},
    {"SevenBytes", "\2\0\0\0\0\0\0"s, {"byte 7: the file ends before"}},
    {"OnlyLength", length_of(2), {"byte 0: a header of 2 bytes reaches beyond", "at 8"}},
    {"HeaderBeyondFileByOne", length_of(3) + "{}", {"byte 0: a header of 3 bytes reaches beyond", "at 10"}},
    {"HeaderOf2To64", length_of(~0ull) + "{}", {"byte 0: the header length is 18446744073709551615", "16777216"}},
    {"HeaderBeyondLimit", length_of((16 << 20) + 1) + "{}", {"byte 0: the header length is 16777217"}},
    {"NoHeader", length_of(0), {"byte 8: the header begins with '{'"}},
    {"NoHeaderButABrace", length_of(0) + "{}", {"byte 8: the header begins with '{'"}},
    {"HeaderIsAList", safetensors("[]"), {"byte 8: the header begins with '{'"}},
    {"SpaceFirst", safetensors(" {}"), {"byte 8: the header begins with '{'"}},
    {"ByteOrderMark", safetensors("\xEF\xBB\xBF{}"), {"byte 8: the header begins with '{'"}},
    {"PaddedWithNewline", safetensors("{}\n"), {"byte 10: the header is padded with spaces only"}},
    {"PaddedWithTab", safetensors("{}\t  "), {"byte 10: the header is padded with spaces only"}},
    {"PaddedWithNul", safetensors("{}\0"s), {"byte 10: this is not JSON: a NUL"}},
    {"NotJson", safetensors("{\"a\"}"), {"byte 12: this is not JSON"}},
    {"NotUtf8", safetensors("{\"\xff\":1}"), {"byte 10: this is not JSON"}},
    {"NotClosed", safetensors("{   "), {"byte 12: this is not JSON"}},
    {"TwoObjects", safetensors("{}{}"), {"byte 10: this is not JSON"}},
    {"TooDeep", safetensors("{\"a\":" + repeated("[", 100) + repeated("]", 100) + "}"), {"byte 76: more than 64"}},
    {"TensorTwice", one(kGood + "," + kGood), {"key 'a' twice"}},
    {"MetadataTwice", one("\"__metadata__\":{},\"__metadata__\":{}," + kGood), {"key '__metadata__' twice"}},
    {"DtypeTwice", one("\"a\":{\"dtype\":\"F32\",\"dtype\":\"F32\"}"), {"key 'dtype' twice"}},
    {"MetadataIsNull", one("\"__metadata__\":null," + kGood), {"__metadata__ is of type null; it must be an object"}},
    {"MetadataIsAList", one("\"__metadata__\":[]," + kGood), {"__metadata__ is of type array"}},
    {"MetadataOfNumbers", one("\"__metadata__\":{\"n\":1}," + kGood), {"__metadata__: 'n' is 1; it must be a string"}},
    {"MetadataOfObjects", one("\"__metadata__\":{\"n\":{}}," + kGood), {"__metadata__: 'n' is of type object"}},
    {"NameWithNul", one(entry("a\\u0000", "F32", "[2]", "[0,8]")), {"tensor 'a\\x00': a name has no NUL"}},
    {"EntryIsNull", one("\"a\":null"), {kA + "it is of type null; it must be an object"}},
    {"NoDtype", one("\"a\":{\"shape\":[2],\"data_offsets\":[0,8]}"), {kA + "key 'dtype' is missing"}},
    {"NoShape", one("\"a\":{\"dtype\":\"F32\",\"data_offsets\":[0,8]}"), {kA + "key 'shape' is missing"}},
    {"NoOffsets", one("\"a\":{\"dtype\":\"F32\",\"shape\":[2]}"), {kA + "key 'data_offsets' is missing"}},
    {"UnknownKey",
     one("\"a\":{\"strides\":[1],\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}"),
     {kA + "unknown key 'strides'"}},
    {"DtypeIsANumber",
     one("\"a\":{\"dtype\":32,\"shape\":[2],\"data_offsets\":[0,8]}"),
     {kA + "dtype is 32; it must be"}},
    {"DtypeUnknown", shaped("[2]", "[0,8]", "F33"), {kA + "dtype 'F33' is unknown"}},
    {"DtypeInSmallLetters", shaped("[2]", "[0,8]", "f32"), {kA + "dtype 'f32' is unknown"}},
    {"DtypeWithControlBytes", shaped("[2]", "[0,8]", "\\u001b[2J"), {kA + "dtype '\\x1b[2J' is unknown"}},
    {"ShapeIsANumber", shaped("2"), {kA + "shape is 2; it must be an array"}},
    {"SixtyFiveExtents", shaped("[" + repeated("1,", 64) + "2]"), {kA + "shape has 65 extents; at most 64"}},
    {"NegativeExtent", shaped("[-2]"), {kA + "a number of shape is -2; it must be a whole number"}},
    {"MinusZero", shaped("[-0]", "[0,0]"), {kA + "a number of shape is 0; it must be a whole"}},
    {"FractionalExtent", shaped("[2.0]"), {kA + "a number of shape is 2.0; it must be a whole number"}},
    {"ExponentExtent", shaped("[2e0]"), {kA + "a number of shape is 2.0"}},
    {"ExtentAsText", shaped("[\"2\"]"), {kA + "a number of shape is of type string"}},
    {"ExtentBeyond2To53", shaped("[9007199254740993,0]", "[0,0]"), {kA + "a number of shape is 9007199254740993"}},
    {"ExtentBeyond2To64", shaped("[18446744073709551616]"), {kA + "a number of shape is 1.84467"}},
    {"ProductOverflows", shaped("[4294967296,4294967296,2]"), {kA, "more than 63 bits, an overflow"}},
    {"ProductOfBitsOverflows", shaped("[9007199254740992,32]"), {kA, "more than 63 bits, an overflow"}},
    {"EmptyButOverflows", shaped("[0,9007199254740992,9007199254740992]", "[0,0]"), {kA, "overflow"}},
    {"HalfABytes", shaped("[15]", "[0,8]", "F4"), {kA + "shape takes 60 bits of F4; it must take whole bytes"}},
    {"SixBits", shaped("[2]", "[0,8]", "F6_E3M2"), {kA + "shape takes 12 bits of F6_E3M2"}},
    {"OffsetsAreAnObject", shaped("[2]", "{}"), {kA + "data_offsets must be an array of two numbers"}},
    {"OneOffset", shaped("[2]", "[0]"), {kA + "data_offsets must be an array of two numbers"}},
    {"ThreeOffsets", shaped("[2]", "[0,8,8]"), {kA + "data_offsets must be an array of two numbers"}},
    {"NegativeOffset", shaped("[2]", "[-8,0]"), {kA + "a number of data_offsets is -8"}},
    {"FractionalOffset", shaped("[2]", "[0,8.5]"), {kA + "a number of data_offsets is 8.5"}},
    {"OffsetBeyond2To53", shaped("[2]", "[0,9007199254740993]"), {kA + "a number of data_offsets is 90071992547409"}},
    {"EndsBeforeItBegins", shaped("[2]", "[8,0]"), {kA + "data_offsets end at 0, before they begin at 8"}},
    {"EndsBeyondTheFile", shaped("[2]", "[1,9]"), {kA + "data_offsets end at 9, the file holds 8 bytes of data"}},
    {"PetabyteClaim", shaped("[1125899906842624]", "[0,4503599627370496]"), {kA, "the file holds 8 bytes of data"}},
    {"FewerBytesThanShape", shaped("[3]"), {kA + "shape takes 12 bytes of F32, data_offsets are 8 apart"}},
    {"MoreBytesThanShape", shaped("[]"), {kA + "shape takes 4 bytes of F32, data_offsets are 8 apart"}},
    {"EmptyWithBytes", shaped("[0]"), {kA + "shape takes 0 bytes of F32, data_offsets are 8 apart"}},
    {"HoleAtTheStart", one(entry("a", "F32", "[1]", "[4,8]")), {kA + "data_offsets begin at 4", "end at 0; no bytes"}},
    {"HoleBetween",
     one(entry("a", "U8", "[3]", "[0,3]") + "," + entry("b", "F32", "[1]", "[4,8]")),
     {"tensor 'b': data_offsets begin at 4, the tensors before it end at 3; no bytes may lie between"}},
    {"EmptyInAHole", one(entry("a", "U8", "[0]", "[4,4]") + "," + entry("b", "F32", "[1]", "[4,8]")), {kA, "no bytes"}},
    {"Overlap",
     one(entry("a", "U8", "[5]", "[0,5]") + "," + entry("b", "F32", "[1]", "[4,8]")),
     {"tensor 'b': data_offsets begin at 4, the tensors before it end at 5; tensors must not overlap"}},
    {"SameBytes", pair("[0,4]", "[0,4]"), {"data_offsets begin at 0, the tensors before it end at 4", "overlap"}},
    {"EmptyInside", one(kGood + "," + entry("b", "U8", "[0]", "[4,4]")), {"tensor 'b'", "must not overlap"}},
    {"BytesFollow", one(entry("a", "F32", "[1]", "[0,4]")), {"bytes follow the data: the tensors end at 4", "holds 8"}},
    {"BytesOfNoTensor", safetensors("{}", "x"), {"bytes follow the data: the tensors end at 0", "holds 1"}},
    {"LongName", one("\"" + std::string(300, 'n') + "\":1"), {std::string(128, 'n') + "...': it is 1"}}};

class SafetensorsHostile : public testing::InFolder, public ::testing::WithParamInterface<Hostile> {};
INSTANTIATE_TEST_SUITE_P(Files, SafetensorsHostile, ::testing::ValuesIn(kHostile),
                         [](const auto& i) { return i.param.name; });

TEST_P(SafetensorsHostile, IsRefusedWithFileAndRule) {
  const Hostile& hostile = GetParam();
  const fs::path path = put("hostile.safetensors", hostile.content);
  const std::vector<char> exact(hostile.content.begin(), hostile.content.end());  // no NUL to read by mistake
  for (const std::string& word : hostile.words) {
    const auto parse = [&] { Safetensors::parse(std::as_bytes(std::span(exact)), "given"); };
    expect_refusal(ErrorCode::file_malformed, parse, {"Safetensors::parse: given: ", word});
    expect_refusal(ErrorCode::file_malformed, [&] { Safetensors{path}; },
                   {"Safetensors: " + path.string() + ": ", word});
  }
  EXPECT_EQ(files(), 1);
}

TEST_F(SafetensorsReader, LimitsAreAdjustable) {
  const std::string content = safetensors("{" + kGood + "," + entry("b", "F32", "[0]", "[8,8]") + "}", "12345678");
  const auto with = [&](std::uint64_t header, std::size_t tensors) {
    return [&content, limits = SafetensorsLimits{header, tensors}] {
      Safetensors::parse(bytes_of(content), "limited", limits);
    };
  };
  const std::uint64_t header = content.size() - 16;
  EXPECT_NO_THROW(with(header, 2)());
  expect_refusal(ErrorCode::file_malformed, with(header - 1, 2), {"at most " + std::to_string(header - 1)});
  expect_refusal(ErrorCode::file_malformed, with(header, 1), {"names 2 tensors, at most 1 are accepted"});
  EXPECT_NO_THROW(with(100'000'000, 2)());
  expect_refusal(ErrorCode::bad_option, with(100'000'001, 2), {"Safetensors::parse: header_bytes is 100000001"});
  const auto open = [] { Safetensors("absent", {100'000'001, 1}); };
  expect_refusal(ErrorCode::bad_option, open, {"Safetensors: header_bytes is 100000001"});
}

TEST_F(SafetensorsReader, SizesAreCheckedBeforeAnythingIsAllocated) {
  const fs::path path = put("sparse.safetensors", length_of(16 << 20) + "{}");
  fs::resize_file(path, std::uintmax_t{1} << 33);  // sparse: the header would be 16 MiB of NUL after "{}"
  expect_refusal(ErrorCode::file_malformed, [&] { Safetensors{path}; }, {"byte 10: this is not JSON: a NUL"});
  const fs::path large = put("large.safetensors", one(kGood));
  fs::resize_file(large, std::uintmax_t{1} << 33);
  expect_refusal(ErrorCode::file_malformed, [&] { Safetensors{large}; }, {"bytes follow the data"});
  const std::string claim = length_of(99'999'999) + "{}";
  const std::int64_t before = testing::allocations;
  const auto parse = [&] { Safetensors::parse(bytes_of(claim), "claim", {100'000'000, 1}); };
  EXPECT_THROW(parse(), Error);
  EXPECT_LT(testing::allocations - before, 20) << "the sentence alone";
}

TEST_F(SafetensorsReader, EveryOtherLengthOfAFileIsRefused) {
  const std::string good = one("\"__metadata__\":{\"k\":\"v\"}," + kGood);
  for (std::size_t size = 0; size < good.size(); ++size) {
    const std::vector<char> cut(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(size));
    const auto parse = [&] { Safetensors::parse(std::as_bytes(std::span(cut)), "cut"); };
    expect_refusal(ErrorCode::file_malformed, parse, {"Safetensors::parse: cut: "});
  }
  expect_refusal(ErrorCode::file_malformed, [&] { parsed(good + "x"); }, {"bytes follow"});
}

TEST_F(SafetensorsReader, MutatedFilesAreRefusedOrConsistent) {
  const std::string good = safetensors("{" + entry("b", "F32", "[2,1]", "[0,8]") + "," +
                                           entry("a", "U8", "[3]", "[8,11]") + ",\"__metadata__\":{\"k\":\"v\"}}  ",
                                       "01234567abc");
  const std::string likely = "{}[]\",:0123456789abF -.\\";
  testing::Random random(20240607);
  int accepted = 0, refused = 0;
  for (int round = 0; round < (testing::quick_share() ? 2000 : 20000); ++round) {
    std::string content = good;
    for (auto edits = random.between(1, 3); edits > 0; --edits) {
      const auto at = static_cast<std::size_t>(random.between(0, std::ssize(content) - 1));
      const char any = likely[static_cast<std::size_t>(random.between(0, std::ssize(likely) - 1))];
      if (random.chance(20))
        content[at] = static_cast<char>(content[at] ^ (1 << random.between(0, 7)));
      else
        content[at] = any;
    }
    try {
      const std::vector<char> exact(content.begin(), content.end());
      const Safetensors file = Safetensors::parse(std::as_bytes(std::span(exact)), "mutated");
      std::size_t sum = 0;
      for (const StoredTensor& tensor : file.tensors()) sum += tensor.bytes.size();
      ASSERT_EQ(sum, 11u);
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(error_name(error.code()), "file_malformed") << error.what();
      ++refused;
    }
  }
  EXPECT_GT(accepted, 50);
  EXPECT_GT(refused, 500);
}

TEST_F(SafetensorsReader, OnlyRegularFilesAreOpened) {
  const fs::path fifo = folder_ / "fifo", loose = folder_ / "loose", lost = folder_ / "no" / "a.safetensors";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  fs::create_symlink("absent", loose);
  for (const fs::path& path : {folder_, fifo, loose, lost, fs::path("/dev/zero")}) {
    const char* const reason = fs::exists(path) ? "regular file" : "No such file";
    expect_refusal(ErrorCode::file_missing, [&] { Safetensors{path}; },
                   {path.string() + ": cannot be opened: ", reason});
  }
}

TEST_F(SafetensorsReader, GivesBackItsMapsAndDescriptors) {
  const auto descriptors = [] {
    return std::distance(fs::directory_iterator("/proc/self/fd"), fs::directory_iterator());
  };
  const auto maps = [&] {
    std::ifstream in("/proc/self/maps");
    int count = 0;
    for (std::string line; std::getline(in, line);) count += line.find(folder_.string()) != line.npos ? 1 : 0;
    return count;
  };
  const auto before = descriptors();
  const fs::path good = put("good.safetensors", one(kGood)), bad = put("bad.safetensors", one(kGood) + "x");
  {
    const Safetensors file(good), copy = file;
    EXPECT_EQ(maps(), 1);
    EXPECT_EQ(descriptors(), before);
  }
  EXPECT_THROW(Safetensors{bad}, Error);
  EXPECT_THROW(Safetensors{put("empty.safetensors", "")}, Error);
  EXPECT_EQ(maps(), 0);
  EXPECT_EQ(descriptors(), before);
}

TEST_F(SafetensorsReader, TensorsOutliveTheNameOfTheirFileAndTheFirstCopy) {
  auto first = std::make_unique<Safetensors>(put("a.safetensors", one(kGood, "abcdefgh")));
  const Safetensors copy = *first;
  EXPECT_EQ(copy.find("a"), first->find("a"));
  put("b.safetensors", "other");
  fs::rename(folder_ / "b.safetensors", folder_ / "a.safetensors");
  first.reset();
  EXPECT_EQ(std::memcmp(copy.find("a")->bytes.data(), "abcdefgh", 8), 0);
}

}  // namespace
}  // namespace multihead
