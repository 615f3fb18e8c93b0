// SPDX-License-Identifier: Apache-2.0
// .safetensors files made of their parts, a folder for a test's files, and errors held to their words.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <initializer_list>
#include <iterator>
#include <span>
#include <string>

#include "multihead/error.hpp"
#include "multihead/safetensors.hpp"

namespace multihead::testing {

inline std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

inline std::string length_of(std::uint64_t size) {
  std::string text;
  for (int shift = 0; shift < 64; shift += 8) text += static_cast<char>(size >> shift & 0xff);
  return text;
}

// The bytes of a file: length, header, data.
inline std::string safetensors(const std::string& header, const std::string& data = "") {
  return length_of(header.size()) + header + data;
}

// An entry of a header: "name":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}.
inline std::string entry(const std::string& name, const std::string& dtype, const std::string& shape,
                         const std::string& offsets) {
  return "\"" + name + "\":{\"dtype\":\"" + dtype + "\",\"shape\":" + shape + ",\"data_offsets\":" + offsets + "}";
}

// Throws an Error of this code whose sentence has all of these words.
inline void expect_refusal(ErrorCode code, const std::function<void()>& act, std::initializer_list<std::string> words) {
  try {
    act();
    ADD_FAILURE() << "threw nothing; expected: " << *words.begin();
  } catch (const Error& error) {
    const std::string sentence = error.what();
    EXPECT_EQ(error_name(error.code()), error_name(code)) << sentence;
    for (const std::string& word : words)
      EXPECT_NE(sentence.find(word), std::string::npos) << sentence << "\ndoes not say: " << word;
  }
}

// A test with an empty folder of its own.
class InFolder : public ::testing::Test {
 protected:
  void SetUp() override {
    folder_ = std::filesystem::path(::testing::TempDir()) / ("multihead_files_" + std::to_string(getpid()));
    std::filesystem::remove_all(folder_);
    std::filesystem::create_directory(folder_);
  }
  void TearDown() override { std::filesystem::remove_all(folder_); }

  std::filesystem::path put(const std::string& name, const std::string& content) const {
    std::ofstream(folder_ / name, std::ios::binary) << content;
    return folder_ / name;
  }
  static std::string get(const std::filesystem::path& path) {
    std::ifstream in(path, std::ios::binary);
    return {std::istreambuf_iterator<char>(in), {}};
  }
  std::ptrdiff_t files() const {
    return std::distance(std::filesystem::directory_iterator(folder_), std::filesystem::directory_iterator());
  }

  std::filesystem::path folder_;
};

}  // namespace multihead::testing
