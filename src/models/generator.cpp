// SPDX-License-Identifier: Apache-2.0
// Generator: who joins, what each step feeds, and what becomes of the tokens that come out.
#include <algorithm>
#include <deque>
#include <utility>

#include "models/call_checks.hpp"
#include "models/generate_checks.hpp"
#include "models/spoken_text.hpp"

namespace multihead {

namespace {

constexpr const char* kName = "Generator";

[[noreturn]] void refuse(ErrorCode code, const std::string& rule) { fail(kName, code, rule); }

struct Request {
  std::int64_t number;
  GenerateOptions options;
  std::vector<std::int64_t> tokens;  // the prompt's and the new ones
  std::size_t prompt, fed = 0;       // tokens that the cache has
  std::int64_t pages;                // that it may come to take
  KvSequence sequence = {};
  SpokenText text;

  std::size_t spoken() const { return tokens.size() - prompt; }
};

}  // namespace

struct Generator::State {
  Decoder decoder;
  BytePair tokenizer;
  GeneratorOptions options;
  KvCache cache;
  std::deque<Request> waiting;
  std::vector<Request> running = {};  // in ascending order of numbers
  std::int64_t added = 0, taken_pages = 0;
  std::vector<float> logits = {};

  std::int64_t pages_of(std::size_t prompt, std::int64_t max_tokens) const;
  std::int64_t add(std::vector<std::int64_t> prompt, const GenerateOptions& given);
  void admit();
  void leave(const Request& request);
  std::vector<std::pair<Request*, std::size_t>> next_feed();
  void feed(const std::vector<std::pair<Request*, std::size_t>>& parts);
  Generated speak(Request& request, std::span<const float> own);
  void speak_all(const std::vector<std::pair<Request*, std::size_t>>& parts, std::vector<Generated>& out);
};

// The last token of all is not fed.
std::int64_t Generator::State::pages_of(std::size_t prompt, std::int64_t max_tokens) const {
  const std::int64_t first = static_cast<std::int64_t>(prompt), left = decoder.extents().max_tokens - first;
  const std::int64_t positions = first + std::min(max_tokens, left) - 1, page = cache.spec().page_len;
  return (positions - 1) / page + 1;
}

std::int64_t Generator::State::add(std::vector<std::int64_t> prompt, const GenerateOptions& given) {
  check_generate_options(kName, given);
  if (prompt.empty() && options.begin_id) prompt.push_back(*options.begin_id);
  if (prompt.empty()) refuse(ErrorCode::bad_option, "the prompt has no token; it must have one");
  const DecoderExtents& e = decoder.extents();
  for (std::int64_t id : prompt)
    if (id < 0 || id >= e.vocab_size)
      refuse(ErrorCode::bad_option,
             "an id of the prompt is " + std::to_string(id) + "; it must be 0 to " + std::to_string(e.vocab_size - 1));
  if (static_cast<std::int64_t>(prompt.size()) >= e.max_tokens)
    refuse(ErrorCode::bad_option, "the prompt has " + std::to_string(prompt.size()) + " tokens; of this decoder's " +
                                      std::to_string(e.max_tokens) + " positions one must be left");
  const std::int64_t pages = pages_of(prompt.size(), given.max_tokens);
  if (pages > cache.spec().pages)
    refuse(ErrorCode::bad_option, "the prompt has " + std::to_string(prompt.size()) + " tokens, max_tokens is " +
                                      std::to_string(given.max_tokens) + "; the cache holds " +
                                      std::to_string(cache.spec().pages * cache.spec().page_len) + " positions");
  const std::size_t count = prompt.size();
  waiting.push_back({added, given, std::move(prompt), count, 0, pages, {}, SpokenText(given.stop)});
  return added++;
}

void Generator::State::admit() {
  while (!waiting.empty() && taken_pages + waiting.front().pages <= cache.spec().pages) {
    const KvSequence sequence = cache.add();
    running.push_back(std::move(waiting.front()));
    waiting.pop_front();
    running.back().sequence = sequence;
    taken_pages += running.back().pages;
  }
}

void Generator::State::leave(const Request& request) {
  cache.remove(request.sequence);
  taken_pages -= request.pages;
}

// Who gets how many tokens: one for each that speaks, then prompts in the order in which they came.
std::vector<std::pair<Request*, std::size_t>> Generator::State::next_feed() {
  std::vector<std::pair<Request*, std::size_t>> parts;
  std::size_t left = static_cast<std::size_t>(options.prompt_tokens);
  for (Request& request : running) {
    const std::size_t unfed = request.tokens.size() - request.fed;
    const std::size_t count = request.spoken() > 0 ? unfed : std::min(unfed, left);
    if (request.spoken() == 0) left -= count;
    if (count > 0) parts.emplace_back(&request, count);
  }
  return parts;
}

void Generator::State::feed(const std::vector<std::pair<Request*, std::size_t>>& parts) {
  std::vector<std::int64_t> ids, starts{0};
  std::vector<KvSequence> sequences;
  for (const auto& [request, count] : parts) {
    const auto from = request->tokens.begin() + static_cast<std::ptrdiff_t>(request->fed);
    ids.insert(ids.end(), from, from + static_cast<std::ptrdiff_t>(count));
    starts.push_back(static_cast<std::int64_t>(ids.size()));
    sequences.push_back(request->sequence);
  }
  const std::int64_t words = decoder.extents().vocab_size, rows = static_cast<std::int64_t>(parts.size());
  logits.resize(static_cast<std::size_t>(rows * words));
  decoder.forward({.ids = ids, .cu_seqlens = starts, .sequences = sequences}, cache,
                  MatrixView<float>(logits.data(), {rows, words}), options.layer);
}

Generated Generator::State::speak(Request& request, std::span<const float> own) {
  const std::int64_t id = next_token(own, request.options, static_cast<std::int64_t>(request.tokens.size()));
  request.tokens.push_back(id);
  Generated out{request.number, id, {}, {}};
  const bool ends = std::find(options.end_ids.begin(), options.end_ids.end(), id) != options.end_ids.end();
  if (!ends && tokenizer.is_token(id) && !tokenizer.special(id)) out.text = request.text.put(tokenizer.bytes(id));
  if (ends)
    out.finish = Finish::end;
  else if (request.text.stopped())
    out.finish = Finish::stop;
  else if (static_cast<std::int64_t>(request.spoken()) == request.options.max_tokens ||
           static_cast<std::int64_t>(request.tokens.size()) == decoder.extents().max_tokens)
    out.finish = Finish::length;
  if (out.finish && *out.finish != Finish::stop) out.text += request.text.end();
  if (request.text.stopped()) out.finish = Finish::stop;
  return out;
}

// A logit that is not finite ends everything: what the others would have said is lost.
void Generator::State::speak_all(const std::vector<std::pair<Request*, std::size_t>>& parts,
                                 std::vector<Generated>& out) try {
  const auto words = static_cast<std::size_t>(decoder.extents().vocab_size);
  for (std::size_t row = 0; row < parts.size(); ++row) {
    Request& request = *parts[row].first;
    request.fed += parts[row].second;
    if (request.fed == request.tokens.size())
      out.push_back(speak(request, std::span(logits).subspan(row * words, words)));
  }
} catch (const Error&) {
  for (const Request& request : running) leave(request);
  running.clear(), waiting.clear();
  throw;
}

Generator::Generator(const Decoder& decoder, const BytePair& tokenizer, const GeneratorOptions& options) {
  const std::int64_t words = decoder.extents().vocab_size;
  if (tokenizer.size() > words)
    refuse(ErrorCode::file_malformed,
           "the tokenizer has " + std::to_string(tokenizer.size()) + " ids, the decoder has " + std::to_string(words));
  if (options.prompt_tokens < 1)
    refuse(ErrorCode::bad_option,
           "prompt_tokens is " + std::to_string(options.prompt_tokens) + "; it must be at least 1");
  state_.reset(
      new State{decoder, tokenizer, options, KvCache(decoder.cache_spec(options.positions, options.storage)), {}});
}

Generator::~Generator() = default;
Generator::Generator(Generator&&) noexcept = default;
Generator& Generator::operator=(Generator&&) noexcept = default;

std::int64_t Generator::add(std::string_view prompt, const GenerateOptions& options) {
  return state_->add(state_->tokenizer.encode(prompt), options);
}

std::int64_t Generator::add(std::span<const std::int64_t> prompt, const GenerateOptions& options) {
  return state_->add({prompt.begin(), prompt.end()}, options);
}

void Generator::cancel(std::int64_t request) {
  const auto is = [&](const Request& other) { return other.number == request; };
  std::erase_if(state_->waiting, is);
  const auto found = std::find_if(state_->running.begin(), state_->running.end(), is);
  if (found == state_->running.end()) return;
  state_->leave(*found);
  state_->running.erase(found);
}

bool Generator::done() const noexcept { return state_->running.empty() && state_->waiting.empty(); }

std::vector<Generated> Generator::step() {
  State& state = *state_;
  state.admit();
  std::vector<Generated> out;
  const auto parts = state.next_feed();
  if (parts.empty()) return out;
  state.feed(parts);
  state.speak_all(parts, out);
  for (const Generated& token : out) {
    if (!token.finish) continue;
    const auto ended = std::find_if(state.running.begin(), state.running.end(),
                                    [&](const Request& request) { return request.number == token.request; });
    state.leave(*ended);
    state.running.erase(ended);
  }
  return out;
}

std::vector<std::string> generate(const Decoder& decoder, const BytePair& tokenizer,
                                  std::span<const std::string> prompts, const GenerateOptions& options,
                                  const GeneratorOptions& generator, const TokenReceiver& each) {
  GeneratorOptions roomy = generator;
  for (const std::string& prompt : prompts) {
    const auto tokens = static_cast<std::int64_t>(std::max<std::size_t>(tokenizer.encode(prompt).size(), 1));
    const std::int64_t most = decoder.extents().max_tokens;
    roomy.positions = std::max(roomy.positions, std::min(tokens + std::min(options.max_tokens, most), most));
  }
  Generator all(decoder, tokenizer, roomy);
  std::vector<std::string> texts(prompts.size());
  for (const std::string& prompt : prompts) all.add(prompt, options);
  while (!all.done())
    for (const Generated& token : all.step()) {
      texts[static_cast<std::size_t>(token.request)] += token.text;
      if (each) each(token);
    }
  return texts;
}

}  // namespace multihead
