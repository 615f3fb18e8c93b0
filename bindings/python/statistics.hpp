// SPDX-License-Identifier: Apache-2.0
// Statistics on request: what return_statistics asks for, and the new arrays that they go to.
#pragma once

#include <array>
#include <string>
#include <vector>

#include "options.hpp"

namespace face {

class Statistics {
 public:
  // asked: None or False, True, or a StatisticsRequest. ids: what its tokens stand for where they are True; may be
  // null.
  void read(nb::handle asked, const char* function, nb::handle ids = {});
  bool wanted() const { return wanted_; }
  void make(Kind kind, mh_type type, const Weights::Extents& extents);
  const mh_statistics_request* get() const { return wanted_ ? &request_ : nullptr; }
  // A dict: "extents" (batch, heads, q_len, kv_len), "batchless", "offsets", "keys", "classes", "bin", "plain" and,
  // where it is asked for, "norm_weighted": dicts of arrays by name.
  nb::object result() const;

  static constexpr size_t kOutputs = 13;

 private:
  struct Rows {
    std::array<Result, kOutputs> outputs;
    mh_row_statistics statistics;
  };

  void read_tokens(nb::handle tokens, nb::handle ids);
  void read_classes(nb::handle classes);
  void read_class(nb::handle keys, Place place, uint32_t bit);
  void make_rows(Rows& rows, Kind kind, mh_type type);
  int64_t width(size_t output) const;

  const char* function_ = "";
  bool wanted_ = false, received_ = false, weighted_ = false;
  int64_t top_ = 0;
  nb::object asked_classes_;
  std::vector<std::string> class_names_;
  std::vector<uint32_t> key_classes_;
  mh_tensor classes_{};
  Integers offsets_, keys_, q_tokens_, kv_tokens_;
  Array norms_;
  Weights::Extents extents_{};
  Rows plain_, norm_weighted_;
  mh_statistics_request request_;
};

}  // namespace face
