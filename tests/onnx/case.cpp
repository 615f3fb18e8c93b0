// SPDX-License-Identifier: Apache-2.0
// case.json and the .npy files beside it.
#include "case.hpp"

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>

namespace multihead::onnx {

namespace {

using nlohmann::json;

constexpr std::string_view kFormat = "attn-conformance-1";

// A value of the file by its way from the root, such as "tensors[2].shape".
class Node {
 public:
  Node(const json& value, std::string way, const Case& owner) : value_(value), way_(std::move(way)), owner_(owner) {}

  Node member(const char* key) const {
    if (!value_.is_object()) refuse("an object");
    const auto found = value_.find(key);
    const std::string way = way_.empty() ? key : way_ + "." + key;
    if (found == value_.end()) owner_.malformed("'" + way + "' is missing");
    return {*found, way, owner_};
  }
  std::vector<Node> items() const {
    if (!value_.is_array()) refuse("a list");
    std::vector<Node> nodes;
    for (const json& item : value_) nodes.emplace_back(item, way_ + "[" + std::to_string(nodes.size()) + "]", owner_);
    return nodes;
  }
  std::string text() const {
    if (!value_.is_string()) refuse("a string");
    return value_.get<std::string>();
  }
  std::int64_t integer() const {
    if (!value_.is_number_integer()) refuse("an integer");
    return value_.get<std::int64_t>();
  }
  std::map<std::string, Attribute> attributes() const {
    if (!value_.is_object()) refuse("an object");
    std::map<std::string, Attribute> all;
    for (const auto& [name, value] : value_.items()) {
      const Node node(value, way_ + "." + name, owner_);
      if (value.is_string())
        all[name] = value.get<std::string>();
      else if (value.is_number_integer())
        all[name] = value.get<std::int64_t>();
      else if (value.is_number())
        all[name] = value.get<double>();
      else
        node.refuse("a number or a string");
    }
    return all;
  }
  [[noreturn]] void refuse(const std::string& wanted) const {
    owner_.malformed((way_.empty() ? "the whole" : "'" + way_ + "'") + " must be " + wanted);
  }

 private:
  const json& value_;
  std::string way_;
  const Case& owner_;
};

json parse(const Case& owner) {
  std::ifstream stream(owner.file, std::ios::binary);
  if (!stream) owner.malformed("cannot be opened; every directory of cases holds one");
  try {
    return json::parse(stream);
  } catch (const json::parse_error& error) {
    owner.malformed("byte " + std::to_string(error.byte) + ": not JSON");
  }
}

void read_tensor(const Node& node, Case& owner) {
  const std::string name = node.member("name").text(), role = node.member("role").text();
  const std::string file = node.member("file").text(), type = node.member("dtype").text();
  if (role != "input" && role != "output") node.member("role").refuse("input or output");
  if (file != std::filesystem::path(file).filename()) node.member("file").refuse("the name of a file beside it");
  Shape shape;
  for (const Node& extent : node.member("shape").items()) shape.push_back(extent.integer());
  Array array = read_npy(owner.file.parent_path() / file);
  if (type != type_name(array.type))
    owner.malformed(file + " holds " + std::string(type_name(array.type)) + ", its dtype here is " + type);
  if (shape != array.shape)
    owner.malformed(file + " has shape " + shape_text(array.shape) + ", its shape here is " + shape_text(shape));
  auto& tensors = role == "input" ? owner.inputs : owner.outputs;
  if (!tensors.emplace(name, std::move(array)).second) owner.malformed("two " + role + "s are named " + name);
}

template <class T>
const T* get_if(const std::map<std::string, Attribute>& attributes, const std::string& name) {
  const auto found = attributes.find(name);
  return found == attributes.end() ? nullptr : std::get_if<T>(&found->second);
}

template <class Map>
void only_names(const Case& owner, const char* what, const Map& given, std::initializer_list<std::string_view> known) {
  for (const auto& [name, value] : given)
    if (std::find(known.begin(), known.end(), name) == known.end())
      owner.malformed(owner.op + " of opset " + std::to_string(owner.opset) + " has no " + what + " '" + name + "'");
}

const Array& required(const Case& owner, const char* what, const std::map<std::string, Array>& tensors,
                      const std::string& name) {
  const auto found = tensors.find(name);
  if (found == tensors.end()) owner.malformed(std::string(what) + " '" + name + "' is missing");
  return found->second;
}

}  // namespace

bool Case::runs() const { return std::find(kOperators.begin(), kOperators.end(), op) != kOperators.end(); }

void Case::malformed(const std::string& rule) const { throw Malformed(file.string() + ": " + rule); }

const Array* Case::find(const std::string& tensor) const {
  const auto found = inputs.find(tensor);
  return found == inputs.end() ? nullptr : &found->second;
}

const Array& Case::input(const std::string& tensor) const { return required(*this, "input", inputs, tensor); }

const Array& Case::output(const std::string& tensor) const { return required(*this, "output", outputs, tensor); }

void Case::only(std::initializer_list<std::string_view> attribute_names,
                std::initializer_list<std::string_view> input_names,
                std::initializer_list<std::string_view> output_names) const {
  only_names(*this, "attribute", attributes, attribute_names);
  only_names(*this, "input", inputs, input_names);
  only_names(*this, "output", outputs, output_names);
}

void Case::expect_shape(const std::string& tensor, const Array& array, const Shape& wanted) const {
  if (array.shape != wanted)
    malformed(tensor + " has shape " + shape_text(array.shape) + "; the other tensors ask for " + shape_text(wanted));
}

void Case::expect_type(const std::string& tensor, const Array& array, ElementType wanted) const {
  if (array.type != wanted)
    malformed(tensor + " holds " + std::string(type_name(array.type)) + "; it must hold " +
              std::string(type_name(wanted)));
}

std::vector<std::int64_t> Case::integers(const std::string& tensor) const {
  const Array& array = input(tensor);
  expect_type(tensor, array, ElementType::int64);
  return array.converted<std::int64_t>();
}

std::int64_t Case::integer(const std::string& attribute, std::int64_t fallback) const {
  if (!attributes.contains(attribute)) return fallback;
  if (const auto* value = get_if<std::int64_t>(attributes, attribute)) return *value;
  malformed("'attributes." + attribute + "' must be an integer");
}

std::optional<double> Case::number(const std::string& attribute) const {
  if (!attributes.contains(attribute)) return std::nullopt;
  if (const auto* value = get_if<double>(attributes, attribute)) return *value;
  if (const auto* value = get_if<std::int64_t>(attributes, attribute)) return static_cast<double>(*value);
  malformed("'attributes." + attribute + "' must be a number");
}

std::string Case::word(const std::string& attribute, const std::string& fallback) const {
  if (!attributes.contains(attribute)) return fallback;
  if (const auto* value = get_if<std::string>(attributes, attribute)) return *value;
  malformed("'attributes." + attribute + "' must be a string");
}

Case read_case(const std::filesystem::path& folder) {
  Case c;
  c.file = folder / "case.json";
  const json whole = parse(c);
  const Node root(whole, "", c);
  if (root.member("format").text() != kFormat) root.member("format").refuse(std::string(kFormat));
  c.name = root.member("name").text();
  if (c.name != folder.filename())
    root.member("name").refuse("the name of its directory, " + folder.filename().string());
  c.op = root.member("op").text();
  c.opset = root.member("opset").integer();
  c.commit = root.member("source").member("commit").text();
  if (!c.runs()) return c;
  c.attributes = root.member("attributes").attributes();
  for (const Node& tensor : root.member("tensors").items()) read_tensor(tensor, c);
  return c;
}

std::string shape_text(const Shape& shape) {
  std::string text = "(";
  for (const std::int64_t extent : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(extent);
  return text + (shape.size() == 1 ? ",)" : ")");
}

}  // namespace multihead::onnx
