// SPDX-License-Identifier: Apache-2.0
// A call of the table, in memory: tensors with owners, options as JSON, and whether an output was written.
#pragma once

#include <cstddef>
#include <map>
#include <nlohmann/json.hpp>
#include <stdexcept>
#include <string>
#include <vector>

#include "multihead/multihead.h"

namespace bad_input {

using Json = nlohmann::json;

// A face has no words for the case: the compiler refuses it, or the argument does not exist there.
struct CannotBeSaid : std::runtime_error {
  using std::runtime_error::runtime_error;
};

struct Outcome {
  std::string status;  // "ok", or the word of the error's code
  std::string sentence;
};

// One call: the tensors and options of its base, changed as the case says.
class Problem {
 public:
  Problem(const Json& base, const Json& change);

  // NULL where it is absent.
  const mh_tensor* tensor(const std::string& name) const;
  // A list of the options or of the call as a tensor of its own; NULL where it is absent.
  const mh_tensor* list(const Json& holder, const std::string& name, mh_type type);
  const Json& options() const { return options_; }
  const Json& run() const { return run_; }
  const Json& call() const { return call_; }
  std::string folder() const;  // of the call, in the folder of models
  // Whether a byte of any output differs from what it was filled with.
  bool written() const;

 private:
  struct Owned {
    mh_tensor tensor{};
    std::vector<std::byte> bytes;
    bool output = false;
  };
  void add(const std::string& name, const Json& description);

  std::map<std::string, Owned> tensors_;
  Json options_, run_, call_;
};

// By its name, "float32".
mh_type type_of(const std::string& name);

// A number of JSON, or a text that JSON has no number for: "nan", "inf".
double number(const Json& value);
double number(const Json& holder, const char* name, double otherwise);

// Where the models of the table's encoders are.
extern std::string models;

Outcome run_c(const std::string& call, Problem& problem);
// Throws CannotBeSaid.
Outcome run_cpp(const std::string& call, Problem& problem);

}  // namespace bad_input
