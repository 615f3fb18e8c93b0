// SPDX-License-Identifier: Apache-2.0
// A model's folder: one .safetensors file, or several that agree with their index.
#include <algorithm>
#include <map>
#include <new>
#include <string>
#include <system_error>
#include <vector>

#include "io/checkpoint_index.hpp"
#include "io/mapped_file.hpp"
#include "io/safetensors_state.hpp"
#include "io/stored_tensor.hpp"
#include "multihead/safetensors.hpp"

namespace multihead {

struct Checkpoint::State {
  std::filesystem::path folder;
  std::vector<io::OpenSafetensors> files;
  std::vector<StoredTensor> tensors;  // of all files, in ascending order of names
};

namespace {

constexpr const char* kSingle = "model.safetensors";
constexpr const char* kIndex = "model.safetensors.index.json";

io::OpenSafetensors open(const std::filesystem::path& path, const SafetensorsLimits& limits) {
  const std::string name = path.string();
  return io::open_safetensors(path, io::Origin{"Checkpoint", name}, limits);
}

// A file may hold what the index says it holds, and nothing else.
void check_file(const std::string& file, std::span<const StoredTensor> tensors, const io::CheckpointIndex& index,
                const io::Origin& origin) {
  for (const StoredTensor& tensor : tensors) {
    const auto entry = index.find(tensor.name);
    const std::string start =
        io::printable(file, 128) + " holds " + io::tensor_text(tensor.name) + ", which weight_map ";
    if (entry == index.end()) origin.malformed(start + "does not name");
    if (entry->second != file) origin.malformed(start + "says is in " + io::printable(entry->second, 128));
  }
}

void open_files(Checkpoint::State& state, const SafetensorsLimits& limits) {
  const std::filesystem::path path = state.folder / kIndex;
  const std::string name = path.string();
  const io::Origin origin{"Checkpoint", name};
  const io::CheckpointIndex index = io::parse_checkpoint_index(io::MappedFile(path, origin).bytes(), origin, limits);
  std::map<std::string_view, std::span<const StoredTensor>> tensors_of;
  for (const auto& [tensor, file] : index) {
    const auto [place, is_new] = tensors_of.try_emplace(file);
    if (is_new) {
      state.files.push_back(open(state.folder / file, limits));
      place->second = state.files.back()->tensors;
      check_file(file, place->second, index, origin);
    }
    const StoredTensor* const found = io::find_tensor(place->second, tensor);
    if (!found) origin.malformed("weight_map: " + io::tensor_text(tensor) + " is not in " + io::printable(file, 128));
    state.tensors.push_back(*found);
  }
}

}  // namespace

Checkpoint::Checkpoint(const std::filesystem::path& folder, const SafetensorsLimits& limits) {
  io::check_limits("Checkpoint", limits);
  const auto state = std::make_shared<State>();
  state->folder = folder;
  const std::string name = folder.string();
  const io::Origin origin{"Checkpoint", name};
  std::error_code error;
  if (!std::filesystem::is_directory(folder, error)) origin.missing("it is not a folder");
  if (io::is_there(folder / kSingle)) {
    state->files.push_back(open(folder / kSingle, limits));
    state->tensors = state->files.back()->tensors;
  } else if (io::is_there(folder / kIndex)) {
    open_files(*state, limits);
  } else {
    origin.missing(std::string("it holds neither ") + kSingle + " nor " + kIndex);
  }
  state_ = state;
}

const std::filesystem::path& Checkpoint::folder() const noexcept { return state_->folder; }

std::span<const StoredTensor> Checkpoint::tensors() const noexcept { return state_->tensors; }

const StoredTensor* Checkpoint::find(std::string_view name) const noexcept {
  return io::find_tensor(state_->tensors, name);
}

}  // namespace multihead
