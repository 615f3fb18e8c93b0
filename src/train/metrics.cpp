// SPDX-License-Identifier: Apache-2.0
// What a step measured, as a line of JSON, and such lines read back.
#include <cmath>
#include <fstream>
#include <limits>

#include "io/json.hpp"
#include "multihead/training.hpp"

namespace multihead {

namespace {

// A field's number, null being NaN; false where it is none.
bool read(const io::Json& value, double& number) {
  if (value.is_null())
    number = std::numeric_limits<double>::quiet_NaN();
  else if (value.is_number())
    number = value.get<double>();
  else
    return false;
  return true;
}

bool read(const nlohmann::ordered_json& line, Metrics& metrics) {
  if (!line.is_object()) return false;
  bool has_step = false;
  for (const auto& [key, value] : line.items()) {
    const io::Json plain = value;
    if (key == "step" || key == "tokens") {
      if (!plain.is_number_integer()) return false;
      (key == "step" ? metrics.step : metrics.tokens) = plain.get<std::int64_t>();
      has_step = has_step || key == "step";
      continue;
    }
    double number = 0;
    if (!read(plain, number)) return false;
    if (key == "loss")
      metrics.loss = number;
    else if (key == "accuracy")
      metrics.accuracy = number;
    else if (key == "gradient_norm")
      metrics.gradient_norm = number;
    else if (key == "rate")
      metrics.rate = number;
    else
      metrics.more.emplace_back(key, number);
  }
  return has_step;
}

}  // namespace

std::string json_line(const Metrics& metrics) {
  nlohmann::ordered_json line{{"step", metrics.step},         {"loss", metrics.loss},
                              {"accuracy", metrics.accuracy}, {"gradient_norm", metrics.gradient_norm},
                              {"rate", metrics.rate},         {"tokens", metrics.tokens}};
  for (const auto& [name, value] : metrics.more) line[name] = value;
  return line.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace);
}

std::vector<Metrics> read_metrics(const std::filesystem::path& path, std::int64_t last_step) {
  const std::string name = path.string();
  const io::Origin origin{"read_metrics", name};
  io::require_regular_file(path, origin);
  std::ifstream file(path, std::ios::binary);
  std::vector<Metrics> all;
  for (std::string text; std::getline(file, text) && !file.eof();) {  // a line that does not end was cut off
    Metrics metrics;
    const auto line = nlohmann::ordered_json::parse(text, nullptr, false);
    if (line.is_discarded() || !read(line, metrics) || metrics.step > last_step) break;
    all.push_back(std::move(metrics));
  }
  if (file.bad()) origin.missing("cannot be read");
  return all;
}

}  // namespace multihead
