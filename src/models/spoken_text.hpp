// SPDX-License-Identifier: Apache-2.0
// The text of tokens as they come, up to the first stop text.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "multihead/byte_pair.hpp"

namespace multihead {

// Holds back what is no whole letter yet, and what may become a stop text.
class SpokenText {
 public:
  explicit SpokenText(std::vector<std::string> stops) : stops_(std::move(stops)) {}

  std::string put(std::string_view bytes) { return take(stream_.put(bytes), false); }
  std::string end() { return take(stream_.end(), true); }
  bool stopped() const noexcept { return stopped_; }

 private:
  std::string take(const std::string& more, bool all) {
    held_ += more;
    std::size_t out = all ? held_.size() : held_.size() - beginning_of_stop();
    for (const std::string& stop : stops_)
      if (const std::size_t at = held_.find(stop); at != held_.npos)
        out = stopped_ ? std::min(out, at) : at, stopped_ = true;
    std::string text = held_.substr(0, out);
    held_.erase(0, stopped_ ? held_.size() : out);
    return text;
  }

  // The bytes at the end that a stop text may begin with.
  std::size_t beginning_of_stop() const {
    std::size_t most = 0;
    for (const std::string& stop : stops_)
      for (std::size_t size = std::min(stop.size() - 1, held_.size()); size > most; --size)
        if (std::string_view(held_).ends_with(std::string_view(stop).substr(0, size))) most = size;
    return most;
  }

  std::vector<std::string> stops_;
  TextStream stream_;
  std::string held_;
  bool stopped_ = false;
};

}  // namespace multihead
