// SPDX-License-Identifier: Apache-2.0
// .npy: round trips, Fortran order, NumPy's own bytes, a table of hostile files, mutated files and failing disks.
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <fstream>
#include <initializer_list>
#include <iterator>
#include <limits>
#include <numeric>
#include <ostream>
#include <random>
#include <utility>

#include "full_disk.hpp"
#include "multihead/error.hpp"
#include "multihead/io.hpp"
#include "test_dir.hpp"

namespace multihead {
namespace {

namespace fs = std::filesystem;
using Shape = std::vector<std::int64_t>;
using namespace std::string_literals;

std::span<const std::byte> as_bytes(const std::string& text) { return std::as_bytes(std::span(text)); }

// Preamble, header padded to a multiple of 64, data.
std::string npy(const std::string& dictionary, std::size_t data_size, int version = 1, std::size_t pad_to = 64) {
  const std::size_t preamble = version == 1 ? 10 : 12;
  std::string header = dictionary;
  while ((preamble + header.size() + 1) % pad_to != 0) header += ' ';
  header += '\n';
  std::string file = "\x93NUMPY"s + static_cast<char>(version) + '\0';
  for (std::size_t at = 8; at < preamble; ++at) file += static_cast<char>(header.size() >> (8 * (at - 8)) & 0xff);
  file += header;
  for (std::size_t i = 0; i < data_size; ++i) file += static_cast<char>(i * 37 + 1);
  return file;
}

std::string dictionary(const std::string& descr, const std::string& order, const std::string& shape) {
  return "{'descr': " + descr + ", 'fortran_order': " + order + ", 'shape': " + shape + ", }";
}
std::string shaped(const std::string& shape, std::size_t data_size = 24) {
  return npy(dictionary("'<f4'", "False", shape), data_size);
}
std::string typed(const std::string& descr) { return npy(dictionary(descr, "False", "(2, 3)"), 24); }
const std::string kGood = dictionary("'<f4'", "False", "(2, 3)");
const std::string kMagic = "\x93NUMPY";

std::int64_t product(const Shape& shape) {
  return std::accumulate(shape.begin(), shape.end(), std::int64_t{1}, std::multiplies<>());
}
std::string tuple(const Shape& shape) {
  std::string text = "(";
  for (const std::int64_t extent : shape) text += std::to_string(extent) + ",";
  return text + ")";
}

class Npy : public testing::Test {
 protected:
  void SetUp() override {
    folder_ = fs::path(testing::TempDir()) / ("multihead_npy_" + std::to_string(getpid()));
    fs::remove_all(folder_);
    fs::create_directory(folder_);
  }
  void TearDown() override { fs::remove_all(folder_); }

  fs::path put(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  static std::string get(const fs::path& path) {
    return {std::istreambuf_iterator<char>(std::ifstream(path, std::ios::binary).rdbuf()), {}};
  }
  std::ptrdiff_t files() const { return std::distance(fs::directory_iterator(folder_), {}); }

  fs::path folder_;
};

// Expects an Error of this code from call() and each of parts in its sentence.
template <class Call>
void expect_error(ErrorCode code, Call call, std::initializer_list<std::string> parts) try {
  call();
  ADD_FAILURE() << "no error; expected one with: " << *parts.begin();
} catch (const Error& error) {
  EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << error.what();
  for (const std::string& part : parts) EXPECT_PRED_FORMAT2(testing::IsSubstring, part, error.what());
}

const std::vector<Shape> kShapes{
    {},        {1},      {7},       {0},       {1000},       {2, 3},       {1, 5},          {5, 1},         {0, 3},
    {17, 129}, {64, 64}, {3, 2, 4}, {3, 0, 2}, {2, 1, 3, 2}, {4, 4, 4, 4}, {2, 3, 1, 2, 2}, {0, 0, 0, 0, 0}};

template <class T>
class NpyTyped : public Npy {};
using Types = testing::Types<float, double>;
TYPED_TEST_SUITE(NpyTyped, Types);

TYPED_TEST(NpyTyped, RoundTripKeepsShapeAndBits) {
  using T = TypeParam;
  using Bits = std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t>;
  std::mt19937_64 random(7);
  for (const Shape& shape : kShapes) {
    std::vector<T> values(static_cast<std::size_t>(product(shape)));
    for (T& value : values) value = std::bit_cast<T>(static_cast<Bits>(random()));  // NaN with payload, denormals, all
    const fs::path path = this->folder_ / "round.npy";
    write_npy(path, values, shape);
    const Array array = read_npy(path);
    EXPECT_EQ(array.type, sizeof(T) == 4 ? ElementType::float32 : ElementType::float64);
    EXPECT_EQ(array.shape, shape);
    EXPECT_EQ(array.count(), product(shape));
    EXPECT_TRUE(std::ranges::equal(std::as_bytes(array.values<T>()), std::as_bytes(std::span(values))));
    const std::string content = this->get(path);
    EXPECT_EQ((content.size() - values.size() * sizeof(T)) % 64, 0u);
    EXPECT_EQ(parse_npy(as_bytes(content), "round").bytes, array.bytes);
    EXPECT_EQ(this->files(), 1);
  }
}

TYPED_TEST(NpyTyped, FortranOrderIsTransposed) {
  using T = TypeParam;
  for (const Shape& shape : kShapes) {
    const auto count = static_cast<std::size_t>(product(shape));
    std::vector<T> file_order(count), expected(count);
    for (std::size_t i = 0; i < count; ++i) {
      std::size_t rest = i, offset = 0, stride = count;
      for (auto extent = shape.rbegin(); extent != shape.rend(); rest /= static_cast<std::size_t>(*extent++)) {
        stride /= static_cast<std::size_t>(*extent);
        offset += rest % static_cast<std::size_t>(*extent) * stride;
      }
      file_order[offset] = expected[i] = static_cast<T>(i);
    }
    std::string content = npy(dictionary(sizeof(T) == 4 ? "'<f4'" : "'<f8'", "True", tuple(shape)), 0);
    if (count > 0) content.append(reinterpret_cast<const char*>(file_order.data()), count * sizeof(T));
    for (const Array& array : {parse_npy(as_bytes(content), "f"), read_npy(this->put("f.npy", content))}) {
      EXPECT_EQ(array.shape, shape);
      EXPECT_EQ(array.converted<T>(), expected) << tuple(shape);
    }
  }
}

TEST_F(Npy, WritesTheBytesOfNumPy) {
  // numpy.save of float32 [[1, 2, 3], [4, 5, 6]], of float64 1.5 and of an empty float32 array; the last header comes
  // to a multiple of 64 without padding, and NumPy pads it by 64.
  const auto expect = [&](const std::string& start, std::size_t spaces, const std::string& data) {
    EXPECT_EQ(get(folder_ / "a.npy"), "\x93NUMPY\x01\x00"s + start + std::string(spaces, ' ') + "\n" + data);
  };
  write_npy(folder_ / "a.npy", std::vector<float>{1, 2, 3, 4, 5, 6}, Shape{2, 3});
  expect("\x76\x00{'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }"s, 58,
         "\0\0\x80\x3f\0\0\0\x40\0\0\x40\x40\0\0\x80\x40\0\0\xa0\x40\0\0\xc0\x40"s);
  write_npy(folder_ / "a.npy", std::vector<double>{1.5}, Shape{});
  expect("\x76\x00{'descr': '<f8', 'fortran_order': False, 'shape': (), }"s, 62, "\0\0\0\0\0\0\xf8\x3f"s);
  write_npy(folder_ / "a.npy", std::vector<float>{}, Shape{0, 100, 10, 10, 10, 10, 10, 10, 10, 10, 10});
  expect("\xb6\x00{'descr': '<f4', 'fortran_order': False, 'shape': (0, 100, 10, 10, 10, 10, 10, 10, 10, 10, 10), }"s,
         84, "");
}

TEST_F(Npy, AcceptsEveryFormOfAGoodHeader) {
  std::vector<std::string> files{shaped("()", 4), shaped("(0,)", 0), npy(dictionary("'<f8'", "False", "(3,)"), 24)};
  for (const char* shape : {"(2, 3)", "(2,3)", "(2, 3,)", "( 2 , 3 , )", "(6,)"}) files.push_back(shaped(shape));
  for (const char* text : {"{'shape': (2, 3), 'descr': '<f4', 'fortran_order': False}",
                           "{ \"fortran_order\" :False,\"shape\":(2,3),\"descr\":\"<f4\" , }"})
    files.push_back(npy(text, 24));
  for (const int version : {1, 2, 3})
    for (const std::size_t pad_to : {1U, 16U, 64U, version == 1 ? 10010U : 10012U})
      files.push_back(npy(kGood, 24, version, pad_to));
  for (const auto& seed : fs::directory_iterator(test_dir() / "corpus_npy")) files.push_back(get(seed.path()));
  EXPECT_EQ(files.size(), 22u + 7u) << "the fuzzer has seven seeds";
  for (const std::string& content : files) {
    const Array array = parse_npy(as_bytes(content), "good");
    EXPECT_EQ(array.bytes.size(), content.size() - content.find('\n') - 1) << content.substr(0, 90);
    EXPECT_EQ(read_npy(put("good.npy", content)).bytes, array.bytes);
  }
}

TEST_F(Npy, ValuesAndConversion) {
  Array array = parse_npy(as_bytes(shaped("(2, 3)")), "a");
  EXPECT_EQ(array.converted<double>(), std::vector<double>(array.values<float>().begin(), array.values<float>().end()));
  expect_error(ErrorCode::bad_option, [&] { array.values<double>(); }, {"float32"});
  array.shape = {2, 4};
  expect_error(ErrorCode::shape_mismatch, [&] { array.values<float>(); }, {"(2, 4)"});
  array.shape = {-1, 2};
  EXPECT_EQ(array.count(), -1);
  write_npy(folder_ / "d.npy", std::vector<double>{0.1, 1e300, -1e-300}, Shape{3});
  EXPECT_EQ(read_npy(folder_ / "d.npy").converted<float>(),
            (std::vector<float>{0.1F, std::numeric_limits<float>::infinity(), -0.0F}));
}

struct Hostile {
  const char* name;
  std::string content;
  std::size_t byte;
  const char* word;
  friend std::ostream& operator<<(std::ostream& out, const Hostile& file) { return out << file.name; }
};

// In a version 1 header of dictionary(): the offsets of the values of descr and, after '<f4' and False, shape.
constexpr std::size_t kDescr = 20, kShape = 60;

const std::vector<Hostile> kHostile{
    {"Empty", "", 0, "empty"},
    {"OtherMagic", "\x93NUMPX\x01"s, 0, "magic"},
    {"Version4", npy(kGood, 24, 4), 6, "version 4.0"},
    {"Version1Point1", kMagic + "\x01\x01\x76\0"s, 6, "version 1.1"},
    {"NoHeader", kMagic + "\x01\0\0\0"s + "data", 8, "length is 0"},
    {"HeaderTooLong", npy(kGood, 24, 1, 10011), 8, "10001"},
    {"HeaderLength4G", kMagic + "\x02\0\xff\xff\xff\xff"s + "{}", 8, "4294967295"},
    {"HeaderBeyondFileByOne", kMagic + "\x03\0\x05\0\0\0"s + "{  \n", 8, "beyond the end"},
    {"NoNewline", kMagic + "\x01\0\x04\0"s + "{}  ", 13, "newline"},
    {"NulPadding", npy(kGood + "\0"s, 24), 69, "spaces"},
    {"TextAfterDictionary", npy(kGood + "x", 24), 69, "follow the dictionary"},
    {"EmptyDictionary", npy("{}", 24), 11, "'descr' is missing"},
    {"NoShape", npy("{'descr': '<f4', 'fortran_order': False}", 24), 49, "'shape' is missing"},
    {"UnknownKey", npy("{'order': 'C', " + kGood.substr(1), 24), 11, "unknown key 'order'"},
    {"UnknownKeyWithControlBytes", npy("{'\x1b[2J\xff': 1}", 24), 11, "\\x1b[2J\\xff"},
    {"LongKey", npy("{'" + std::string(300, 'k') + "': 1}", 24), 11, "k...'"},
    {"DuplicateKey", npy("{'descr': '<f8', " + kGood.substr(1), 24), 27, "duplicate key 'descr'"},
    {"KeyClosedByOtherQuote", npy("{'descr\": 1}", 24), 11, "not closed"},
    {"EscapeInKey", npy("{'\\x64escr': '<f4'}", 24), 11, "escape"},
    {"StructuredType", typed("[('x', '<f4')]"), kDescr, "structured"},
    {"PickledObjects", typed("'|O'"), kDescr, "pickled"},
    {"BigEndian", typed("'>f4'"), kDescr, "big-endian"},
    {"ShapeIsAList", shaped("[2, 3]"), kShape, "tuple"},
    {"ShapeOfOneWithoutComma", shaped("(6)"), kShape, "(2,)"},
    {"Negative", shaped("(-2, 3)"), kShape + 1, "negative"},
    {"LeadingZero", shaped("(2, 03)"), kShape + 4, "leading zero"},
    {"Fraction", shaped("(2.0, 3)"), kShape + 2, "follows an extent"},
    {"Python2Suffix", shaped("(2L, 3L)"), kShape + 2, "suffix 'L'"},
    {"ExtentOf2To63", shaped("(9223372036854775808,)"), kShape + 1, "9223372036854775807"},
    {"ProductOverflow", shaped("(4294967296, 4294967296)", 0), kShape, "overflow"},
    {"ByteCountOverflow", shaped("(2305843009213693952,)", 0), kShape, "overflow"},
    {"SixtyFiveAxes", shaped(tuple(Shape(65, 1)), 4), kShape + 1 + 2 * 64, "64 axes"},
    {"DataShortByOne", shaped("(2, 3)", 23), 151, "24 bytes of data, the file holds 23"},
    {"DataLongByOne", shaped("(2, 3)", 25), 152, "24 bytes of data, the file holds 25"},
    {"PetabyteClaim", shaped("(1125899906842624,)"), 152, "4503599627370496"}};

class NpyHostile : public Npy, public testing::WithParamInterface<Hostile> {};
INSTANTIATE_TEST_SUITE_P(Files, NpyHostile, testing::ValuesIn(kHostile), [](const auto& i) { return i.param.name; });

TEST_P(NpyHostile, IsRefusedWithFileByteAndRule) {
  const auto& [name, content, byte, word] = GetParam();
  const fs::path path = put("hostile.npy", content);
  const std::vector<char> exact(content.begin(), content.end());  // no terminating NUL to read by mistake
  const std::string says = "_npy: " + path.string() + ": byte " + std::to_string(byte) + ": ";
  const auto parse = [&] { parse_npy(std::as_bytes(std::span(exact)), path.string()); };
  expect_error(ErrorCode::file_malformed, parse, {"parse" + says, word});
  expect_error(ErrorCode::file_malformed, [&] { read_npy(path); }, {"read" + says, word});
}

// Values in their places in a header, by a word of the rule that refuses them.
using Values = std::vector<std::pair<const char*, std::vector<const char*>>>;
const Values kTypes{
    {"accepted are '<f2', '<f4', '<f8', '|b1', '|i1', '|u1', '<i4' and '<i8'",
     {"'<i2'", "'<u4'", "'=f4'", "'<c8'", "'|V2'", "'<b1'", "'|?'", "''", "'<f4 '", "'<f' '4'", "'f4'", "'<U4'"}},
    {"quotes", {"None", "u'<f4'", "\t'<f4'", "b'<f4'", "<f4", "{}", "4"}}};
const Values kShapeTexts{
    {"tuple", {"6", "'(2, 3)'", "{}", "None", "2, 3"}},
    {"decimal number", {"(,)", "(2,,3)", "((2, 3),)", "(+2, 3)", "(True, 6)", "(2, 3,,)", "(.5,)", "(2, 3"}},
    {"follows an extent", {"(0x6,)", "(1_0,)", "(2 3)", "(2e0, 3)", "(2:3)", "(2, 3]", "(2*3,)", "(6\n)"}},
    {"negative", {"(-0,)", "(2, -1)"}},
    {"leading zero", {"(00,)", "(0000000000000000000006,)"}},
    {"9223372036854775807", {"(18446744073709551616,)", "(9999999999999999999999999999999999999999,)"}},
    {"overflow", {"(0, 4294967296, 4294967296)", "(4294967296, 4294967296, 0)"}}};
const Values kDictionaries{
    {"begins with '{'", {"[1]", "None", "(2, 3)", " {}", ""}},
    {"key in quotes", {"{descr: '<f4'}", "{'descr': '<f4',, 'shape': (2, 3)}", "{1: 2}", "{,}", "{'descr': '<f4',"}},
    {"follows a key", {"{'descr' '<f4'}", "{'descr'}", "{'descr'= '<f4'}"}},
    {"follows a value", {"{'descr': '<f4'", "{'descr': '<f4' 'shape': ()}", "{'fortran_order': Falsehood}"}},
    {"True or False", {"{'fortran_order': false}", "{'fortran_order': 1}", "{'fortran_order': 'C'}"}}};

TEST_F(Npy, OtherHeaderValuesAreRefused) {
  const auto refuse = [](const Values& values, auto file) {
    for (const auto& [word, texts] : values)
      for (const char* text : texts) {
        const std::string content = file(text);
        const auto parse = [&] { parse_npy(as_bytes(content), "value.npy"); };
        expect_error(ErrorCode::file_malformed, parse, {"value.npy: byte ", word});
      }
  };
  refuse(kTypes, typed);
  refuse(kShapeTexts, [](const char* text) { return shaped(text); });
  refuse(kDictionaries, [](const char* text) { return npy(text, 24); });
}

TEST_F(Npy, FilesOfAnyOtherSizeAreRefused) {
  for (std::size_t size = 1; size < 152; ++size) {
    const std::string cut = shaped("(2, 3)").substr(0, size);
    const char* const rule = size < 10 ? "ends before" : size < 128 ? "beyond the end" : "too early";
    expect_error(ErrorCode::file_malformed, [&] { parse_npy(as_bytes(cut), "cut"); }, {rule});
  }
  const fs::path path = put("large.npy", shaped("(2, 3)"));
  fs::resize_file(path, std::uintmax_t{1} << 33);  // refused unread
  expect_error(ErrorCode::file_malformed, [&] { read_npy(path); }, {"byte 152: bytes follow"});
}

TEST_F(Npy, MutatedFilesAreRefusedOrConsistent) {
  const std::vector<std::string> valid{shaped("(2, 3)"), npy(dictionary("'<f8'", "True", "(3, 1, 2)"), 48, 2),
                                       npy("{'shape':(),'descr':'<f4','fortran_order':False}", 4, 3, 1)};
  std::mt19937 random(20240607);
  const auto below = [&](std::size_t n) { return random() % n; };
  const std::string likely = "{}()[]'\",:-+L0123456789<>|fibu48 \n";
  int accepted = 0, refused = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string content = valid[below(valid.size())];
    for (std::size_t edits = 1 + below(3); edits > 0 && !content.empty(); --edits) {
      const std::size_t at = below(below(2) ? content.size() : std::min<std::size_t>(content.size(), 72));
      const auto any = static_cast<char>(below(2) ? likely[below(likely.size())] : static_cast<char>(below(256)));
      const auto edit = below(6);
      if (edit == 0) content[at] = static_cast<char>(content[at] ^ (1 << below(8)));
      if (edit == 1) content[at] = any;
      if (edit == 2) content.insert(at, 1, any);
      if (edit == 3) content.erase(at, 1 + below(4));
      if (edit == 4) content.insert(at, content.substr(below(content.size()), below(12)));
      if (edit == 5 && below(8) == 0) content.resize(at);
    }
    try {
      const std::vector<char> exact(content.begin(), content.end());
      const Array array = parse_npy(std::as_bytes(std::span(exact)), "mutated");
      ASSERT_EQ(product(array.shape) * static_cast<std::int64_t>(size_of(array.type)), std::ssize(array.bytes));
      ++accepted;
    } catch (const Error& error) {
      ASSERT_EQ(static_cast<int>(error.code()), static_cast<int>(ErrorCode::file_malformed)) << error.what();
      ++refused;
    }
  }
  EXPECT_GT(accepted, 1000);
  EXPECT_GT(refused, 1000);
}

TEST_F(Npy, OnlyRegularFilesAreReadOrWritten) {
  const std::vector<float> one(1);
  const fs::path fifo = folder_ / "fifo", loose = folder_ / "loose", lost = folder_ / "no" / "a.npy";
  ASSERT_EQ(mkfifo(fifo.c_str(), 0600), 0);
  fs::create_symlink("absent", loose);
  for (const fs::path& path : {folder_, fifo, loose, lost}) {  // no device: a writer gone wrong would replace it
    const char* const reason = fs::exists(path) ? "regular file" : "No such file";
    expect_error(ErrorCode::file_missing, [&] { read_npy(path); }, {path.string() + ": cannot be opened: ", reason});
    const auto write = [&] { write_npy(path, one, Shape{1}); };
    expect_error(ErrorCode::file_missing, write, {path.string() + ": cannot be written: "});
  }
  EXPECT_EQ(files(), 2);
}

TEST_F(Npy, UnreadableFileIsNamed) {
  if (geteuid() == 0) GTEST_SKIP() << "root may read everything";
  const fs::path path = put("secret.npy", shaped("(2, 3)"));
  fs::permissions(path, fs::perms::none);
  expect_error(ErrorCode::file_missing, [&] { read_npy(path); }, {"secret.npy: cannot be opened: "});
}

TEST_F(Npy, WriterChecksItsArguments) {
  const std::vector<float> six(6);
  const fs::path path = folder_ / "a.npy";
  for (const Shape& shape : {Shape{7}, Shape{}, Shape{0}, Shape{-2, -3}, Shape{std::int64_t{1} << 62, 1 << 30}})
    expect_error(ErrorCode::shape_mismatch, [&] { write_npy(path, six, shape); }, {"write_npy: shape ("});
  const auto one = std::span(six).first(1);
  expect_error(ErrorCode::shape_mismatch, [&] { write_npy(path, one, Shape(65, 1)); }, {"65 axes"});
  write_npy(path, one, Shape(64, 1));
  EXPECT_EQ(read_npy(path).shape, Shape(64, 1));
}

TEST_F(Npy, WriterReplacesThroughLinksAndKeepsPermissions) {
  const fs::path path = put("a.npy", "old");
  fs::permissions(path, fs::perms::owner_read | fs::perms::owner_write);
  fs::create_symlink("a.npy", folder_ / "link.npy");
  put(".multihead-0.tmp", "left behind");
  write_npy(folder_ / "link.npy", std::vector<float>{1, 2}, Shape{2});
  EXPECT_EQ(read_npy(path).shape, Shape{2});
  EXPECT_TRUE(fs::is_symlink(folder_ / "link.npy"));
  EXPECT_EQ(fs::status(path).permissions(), fs::perms::owner_read | fs::perms::owner_write);
  EXPECT_EQ(get(folder_ / ".multihead-0.tmp"), "left behind");
  EXPECT_EQ(files(), 3);
}

TEST_F(Npy, FullDiskLeavesTheOldFileAndNoOther) {
  const fs::path path = put("a.npy", "old");
  {
    const FullDisk full;
    for (const std::int64_t count : {1000, 100000}) {  // one a buffer's length past the limit, one far past it
      const std::vector<float> values(static_cast<std::size_t>(count));
      const auto write = [&] { write_npy(path, values, Shape{count}); };
      expect_error(ErrorCode::file_missing, write, {"a.npy: cannot be written: "});
    }
  }
  EXPECT_EQ(get(path), "old");
  EXPECT_EQ(files(), 1);
}

}  // namespace
}  // namespace multihead
