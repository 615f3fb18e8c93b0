// SPDX-License-Identifier: Apache-2.0
// A model's folder: one file or several, and an index that must agree with them in both directions.
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <ostream>
#include <string>
#include <vector>

#include "io/checkpoint_index.hpp"
#include "multihead/safetensors.hpp"
#include "safetensors_file.hpp"
#include "test_dir.hpp"

namespace multihead {
namespace {

namespace fs = std::filesystem;
using namespace std::string_literals;
using testing::expect_refusal;

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";
const ErrorCode kMalformed = ErrorCode::file_malformed, kMissing = ErrorCode::file_missing;

// A file of tensors of one byte each, which is its own name's first letter.
std::string holding(const std::vector<std::string>& names) {
  std::string header, data;
  for (const std::string& name : names) {
    const auto at = std::to_string(data.size()), end = std::to_string(data.size() + 1);
    header += (header.empty() ? "{" : ",") + testing::entry(name, "U8", "[1]", "[" + at + "," + end + "]");
    data += name[0];
  }
  return testing::safetensors(header + "}", data);
}

class CheckpointFolder : public testing::InFolder {
 protected:
  // A model of two files that agrees with its index.
  void put_two() const {
    put("one.safetensors", holding({"d", "a"}));
    put("two.safetensors", holding({"c", "b"}));
    put(kIndex,
        "{\"metadata\":{\"total_size\":4.5},\"weight_map\":{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\","
        "\"c\":\"two.safetensors\",\"d\":\"one.safetensors\"}}");
  }
  void expect_malformed(std::initializer_list<std::string> words) const {
    expect_refusal(
        kMalformed, [&] { Checkpoint{folder_}; }, words);
  }
};

TEST_F(CheckpointFolder, OfOneFile) {
  put(kSingle, holding({"b", "a"}));
  put(kIndex, "not read");
  const Checkpoint checkpoint(folder_);
  EXPECT_EQ(checkpoint.folder(), folder_);
  ASSERT_EQ(checkpoint.tensors().size(), 2u);
  EXPECT_EQ(checkpoint.tensors()[0].name, "a");
  EXPECT_EQ(checkpoint.find("b"), &checkpoint.tensors()[1]);
  EXPECT_EQ(checkpoint.find("c"), nullptr);
}

TEST_F(CheckpointFolder, OfTwoFiles) {
  put_two();
  put("other.safetensors", "not named, not read");
  auto first = std::make_unique<Checkpoint>(folder_);
  const Checkpoint checkpoint = *first;
  first.reset();
  ASSERT_EQ(checkpoint.tensors().size(), 4u);
  std::string names;
  for (const StoredTensor& tensor : checkpoint.tensors()) {
    names += tensor.name;
    EXPECT_EQ(static_cast<char>(tensor.bytes[0]), tensor.name[0]);
    EXPECT_EQ(checkpoint.find(tensor.name), &tensor);
  }
  EXPECT_EQ(names, "abcd");
  EXPECT_EQ(checkpoint.find("e"), nullptr);
}

TEST_F(CheckpointFolder, ThroughLinks) {
  put_two();
  fs::rename(folder_ / "one.safetensors", folder_ / "blob");
  fs::create_symlink("blob", folder_ / "one.safetensors");
  EXPECT_EQ(Checkpoint(folder_).tensors().size(), 4u);
}

TEST_F(CheckpointFolder, WithoutFilesIsMissing) {
  expect_refusal(
      kMissing, [&] { Checkpoint{folder_}; },
      {"Checkpoint: " + folder_.string() + ": it holds neither model.safetensors nor model.safetensors.index"});
  expect_refusal(kMissing, [&] { Checkpoint{folder_ / "no"}; }, {"no: it is not a folder"});
  const fs::path file = put("file", "");
  expect_refusal(kMissing, [&] { Checkpoint{file}; }, {"file: it is not a folder"});
}

TEST_F(CheckpointFolder, FilesThatCannotBeOpenedAreNamed) {
  put_two();
  fs::remove(folder_ / "two.safetensors");
  const auto open = [&] { Checkpoint{folder_}; };
  expect_refusal(kMissing, open, {"Checkpoint: ", "two.safetensors: cannot be opened: No such file"});
  ASSERT_EQ(mkfifo((folder_ / "two.safetensors").c_str(), 0600), 0);
  expect_refusal(kMissing, open, {"two.safetensors: cannot be opened: it is not a regular file"});
  fs::remove(folder_ / kIndex);
  fs::create_directory(folder_ / kIndex);
  expect_refusal(kMissing, open, {"index.json: cannot be opened: it is not a regular file"});
  fs::create_symlink("absent", folder_ / kSingle);  // there, so the index is not looked at
  expect_refusal(kMissing, open, {"model.safetensors: cannot be opened: No such file"});
}

TEST_F(CheckpointFolder, MalformedFilesAreNamed) {
  put_two();
  put("two.safetensors", "short");
  expect_malformed({"Checkpoint: ", "two.safetensors: byte 5: the file ends before"});
  put(kSingle, "");
  expect_malformed({"Checkpoint: ", "model.safetensors: byte 0: the file ends before"});
}

TEST_F(CheckpointFolder, FilesAndIndexMustAgree) {
  put_two();
  put("two.safetensors", holding({"b"}));
  expect_malformed({"index.json: weight_map: tensor 'c' is not in two.safetensors"});
  put("two.safetensors", holding({"b", "c", "e"}));
  expect_malformed({"index.json: two.safetensors holds tensor 'e', which weight_map does not name"});
  put("two.safetensors", holding({"b", "c", "a"}));
  expect_malformed({"index.json: two.safetensors holds tensor 'a', which weight_map says is in one.safetensors"});
  put_two();
  put("one.safetensors", holding({"a", "b", "d"}));
  expect_malformed({"index.json: one.safetensors holds tensor 'b', which weight_map says is in two.safetensors"});
  put_two();
  EXPECT_NO_THROW(Checkpoint{folder_});
}

TEST_F(CheckpointFolder, LimitsHoldForFilesAndIndex) {
  put_two();
  const auto with = [&](std::uint64_t header, std::size_t tensors) {
    return [this, limits = SafetensorsLimits{header, tensors}] { Checkpoint(folder_, limits); };
  };
  const auto size = fs::file_size(folder_ / kIndex);
  EXPECT_NO_THROW(with(size, 4)());
  expect_refusal(kMalformed, with(size - 1, 4), {"index.json: it has " + std::to_string(size) + " bytes, at most "});
  expect_refusal(kMalformed, with(size, 3), {"index.json: weight_map names 4 tensors, at most 3 are accepted"});
  expect_refusal(ErrorCode::bad_option, with(100'000'001, 4), {"Checkpoint: header_bytes is 100000001"});
  put(kSingle, holding({"a", "b"}));
  expect_refusal(kMalformed, with(1000, 1), {"model.safetensors: the header names 2 tensors"});
}

struct Hostile {
  const char* name;
  std::string text;
  const char* word;
  friend void PrintTo(const Hostile& index, std::ostream* out) { *out << index.name; }
};

std::string mapped(const std::string& file) { return "{\"weight_map\":{\"a\":\"" + file + "\"}}"; }

const std::vector<Hostile> kHostile{
    {"Empty", "", "byte 0: this is not JSON"},
    {"NotJson", "{\"weight_map\":{\"a\":}}", "byte 19: this is not JSON"},
    {"MoreAfterIt", "{\"weight_map\":{}} {}", "byte 18: this is not JSON"},
    {"List", "[]", "it is of type array; it must be an object"},
    {"NoWeightMap", "{\"metadata\":{}}", "key 'weight_map' is missing"},
    {"WeightMapIsAList", "{\"weight_map\":[]}", "weight_map is of type array; it must be an object"},
    {"MetadataIsNull", "{\"metadata\":null,\"weight_map\":{}}", "metadata is of type null; it must be an object"},
    {"TensorTwice", "{\"weight_map\":{\"a\":\"f\",\"a\":\"f\"}}", "byte 25: an object has the key 'a' twice"},
    {"SizeIsNegative", "{\"metadata\":{\"total_size\":-1},\"weight_map\":{}}",
     "total_size of metadata is -1; it must be"},
    {"SizeIsText", "{\"metadata\":{\"total_size\":\"1\"},\"weight_map\":{}}",
     "total_size of metadata is of type string"},
    {"FileIsANumber", "{\"weight_map\":{\"a\":1}}", "tensor 'a': its file is 1; it must be a string"},
    {"NoFile", mapped(""), "tensor 'a': its file '' is not the plain name of a file"},
    {"ThisFolder", mapped("."), "its file '.' is not the plain name"},
    {"FolderAbove", mapped(".."), "its file '..' is not the plain name"},
    {"PathAbove", mapped("../a.safetensors"), "its file '../a.safetensors' is not the plain name"},
    {"AbsolutePath", mapped("/etc/passwd"), "its file '/etc/passwd' is not the plain name"},
    {"PathBelow", mapped("b/a.safetensors"), "its file 'b/a.safetensors' is not the plain name"},
    {"EscapedSlash", mapped("b\\u002fa"), "its file 'b/a' is not the plain name"},
    {"Backslash", mapped("b\\\\a"), "its file 'b\\a' is not the plain name"},
    {"Nul", mapped("a\\u0000"), "its file 'a\\x00' is not the plain name"}};

class CheckpointIndexRefuses : public testing::InFolder, public ::testing::WithParamInterface<Hostile> {};
INSTANTIATE_TEST_SUITE_P(Texts, CheckpointIndexRefuses, ::testing::ValuesIn(kHostile),
                         [](const auto& i) { return i.param.name; });

TEST_P(CheckpointIndexRefuses, WithFileAndRule) {
  const Hostile& hostile = GetParam();
  const fs::path path = put(kIndex, hostile.text);
  expect_refusal(kMalformed, [&] { Checkpoint{folder_}; }, {"Checkpoint: " + path.string() + ": ", hostile.word});
}

TEST(CheckpointIndex, SeedsOfTheFuzzerAreRead) {
  int read = 0, refused = 0;
  for (const auto& seed : fs::directory_iterator(test_dir() / "corpus_checkpoint_index")) {
    std::ifstream in(seed.path(), std::ios::binary);
    const std::string text{std::istreambuf_iterator<char>(in), {}};
    try {
      io::parse_checkpoint_index(testing::bytes_of(text), {"parse", "seed"}, {});
      ++read;
    } catch (const Error&) {
      ++refused;
    }
  }
  EXPECT_EQ(read, 3);
  EXPECT_EQ(refused, 1);
  const std::string other = "{\"weight_map\":{\"b\":\"2\",\"a\":\"...\"},\"more\":[],\"metadata\":{\"format\":null}}";
  EXPECT_EQ(io::parse_checkpoint_index(testing::bytes_of(other), {"parse", "other"}, {}),
            (io::CheckpointIndex{{"a", "..."}, {"b", "2"}}));
}

}  // namespace
}  // namespace multihead
