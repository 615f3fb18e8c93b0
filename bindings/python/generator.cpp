// SPDX-License-Identifier: Apache-2.0
// Generator of the module: texts that a decoder goes on with, step by step.
#include <nanobind/stl/unique_ptr.h>

#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "c/options.hpp"
#include "faces.hpp"
#include "multihead/generate.hpp"
#include "options.hpp"
#include "speaking.hpp"

namespace face {
namespace {

constexpr char kName[] = "Generator";

// Python's threads may call at any time: each is alone with it. The lock is taken and given back without the GIL.
struct Speaker {
  multihead::Generator generator;
  mutable std::mutex mutex = {};

  template <class Call>
  void alone(const Call& call) {
    run_released([&] {
      const std::lock_guard lock(mutex);
      call();
    });
  }
};

multihead::KvStorage storage_of(nb::handle storage) {
  constexpr multihead::KvStorage kStorages[] = {multihead::KvStorage::float32, multihead::KvStorage::bfloat16,
                                                multihead::KvStorage::float16, multihead::KvStorage::int8};
  return kStorages[choice(storage, {kName, "storage"}, {"float32", "bfloat16", "float16", "int8"})];
}

// call: (positions, storage, prompt_tokens, threads, target).
std::unique_ptr<Speaker> create(const OpenDecoder& open, const multihead::BytePair& tokenizer, const nb::tuple& call) {
  multihead::GeneratorOptions options;
  options.positions = integer(call[0], {kName, "positions"});
  options.storage = storage_of(call[1]);
  options.prompt_tokens = integer(call[2], {kName, "prompt_tokens"});
  options.end_ids = open.end_ids;
  options.begin_id = open.begin_id;
  RunOptions run(kName);
  run.read_threads(call[3]);
  run.read_target(call[4]);
  std::unique_ptr<Speaker> made;
  run_released([&] {
    options.layer = multihead::c::run_options(kName, run.get());
    made.reset(new Speaker{multihead::Generator(open.decoder, tokenizer, options)});
  });
  return made;
}

std::string utf8_of(nb::handle text, Place place) {
  Py_ssize_t length = 0;
  const char* const bytes = utf8(text, length, place);
  return std::string(bytes, static_cast<size_t>(length));
}

// call: (max_tokens, temperature, top_k, top_p, seed, stop), stop a list.
multihead::GenerateOptions options_of(const nb::tuple& call) {
  multihead::GenerateOptions options;
  options.max_tokens = integer(call[0], {kName, "max_tokens"});
  options.temperature = number(call[1], {kName, "temperature"});
  if (!nb::handle(call[2]).is_none()) options.top_k = integer(call[2], {kName, "top_k"});
  if (!nb::handle(call[3]).is_none()) options.top_p = number(call[3], {kName, "top_p"});
  options.seed = word(call[4], {kName, "seed"});
  for (nb::handle stop : nb::object(call[5])) options.stop.push_back(utf8_of(stop, {kName, "stop"}));
  return options;
}

// prompt: a str, or ids.
int64_t add(Speaker& speaker, nb::handle prompt, const nb::tuple& call) {
  const multihead::GenerateOptions options = options_of(call);
  int64_t request = 0;
  if (PyUnicode_Check(prompt.ptr())) {
    const std::string text = utf8_of(prompt, {kName, "prompt"});
    speaker.alone([&] { request = speaker.generator.add(std::string_view(text), options); });
    return request;
  }
  Integers ids;
  if (!prompt.is_none()) ids.read_if(prompt, {kName, "prompt"});
  if (!ids.given()) raise(PyExc_TypeError, {kName, "prompt"}, "is None; a str or a list of ids is wanted");
  speaker.alone([&] {
    request = speaker.generator.add(multihead::c::list<std::int64_t>({kName, "prompt"}, ids.get()), options);
  });
  return request;
}

void cancel(Speaker& speaker, nb::handle request) {
  const int64_t number = integer(request, {"Generator.cancel", "request"});
  speaker.alone([&] { speaker.generator.cancel(number); });
}

bool done(Speaker& speaker) {
  bool answer = false;
  speaker.alone([&] { answer = speaker.generator.done(); });
  return answer;
}

// (request, id, text, finish) of each new token.
nb::list step(Speaker& speaker) {
  std::vector<multihead::Generated> made;
  speaker.alone([&] { made = speaker.generator.step(); });
  constexpr const char* kFinishes[] = {"end", "stop", "length"};
  nb::list result;
  for (const multihead::Generated& token : made) {
    const nb::object finish =
        token.finish ? nb::object(nb::str(kFinishes[static_cast<int>(*token.finish)])) : nb::none();
    result.append(nb::make_tuple(token.request, token.id, nb::str(token.text.data(), token.text.size()), finish));
  }
  return result;
}

}  // namespace

void add_generator(nb::module_& module) {
  nb::class_<Speaker>(module, "Generator")
      .def_static("create", &create)
      .def("add", &add, nb::arg().none(), nb::arg())
      .def("cancel", &cancel, nb::arg().none())
      .def("step", &step)
      .def_prop_ro("done", &done);
}

}  // namespace face
